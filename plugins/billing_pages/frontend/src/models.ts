// The API's models by their names. Types come from the API's own schema (api-types.ts is generated: npm run types).
import type { components } from "./api-types";

type Schemas = components["schemas"];

/** A model of the API, with every field present (the server always sends all of them). */
export type Model<Name extends keyof Schemas> = Schemas[Name];

export type Outcome = "delivered" | "held" | "excluded" | "awaiting approval" | "in doubt";
export type Permission = "read" | "edit" | "approve" | "admin";
export type Problem = { error: string; message: string; current?: unknown };
