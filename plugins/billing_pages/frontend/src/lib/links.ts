import type { Model } from "../models";

type LineFilter = Partial<Model<"LineFilter">>;

/** Address of Mapping › Invoices with a filter. */
export const linesLink = (filter: LineFilter) => `/mapping/invoices?filter=${encodeURIComponent(JSON.stringify(filter))}`;

export const planLink = (planId: number) => `/plan/${planId}`;
export const logsLink = (runId: number) => `/logs?run=${runId}`;
export const airflowRun = (dagId: string, dagRunId: string) => `dags/${encodeURIComponent(dagId)}/runs/${encodeURIComponent(dagRunId)}`;
