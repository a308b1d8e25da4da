// Mapping › Invoices: the review grid. What each line will become, and everything that changes it.
import { Button, HStack, Menu, Portal } from "@chakra-ui/react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback, useMemo, useRef, useState } from "react";
import { Empty } from "../components/Empty";
import { type Edit, Grid, type GridHandle, type GridQuery } from "../components/Grid";
import { GuardedButton } from "../components/GuardedButton";
import { Page } from "../components/Page";
import { ReasonDialog } from "../components/ReasonDialog";
import { RunProgress } from "../components/RunProgress";
import { toastReleased } from "../components/released";
import { toast, toastError } from "../components/Toaster";
import { useAddress } from "../lib/address";
import { triggerDag } from "../lib/airflow";
import { ApiError, apiUrl, get, send } from "../lib/api";
import { counted, period as periodName } from "../lib/format";
import { useMe } from "../lib/session";
import type { Model } from "../models";
import { BulkDialog, type BulkValues } from "./invoices/BulkDialog";
import { type Conflict, ConflictDialog } from "./invoices/ConflictDialog";
import { FilterBar } from "./invoices/FilterBar";
import { type LineFilter, narrowing, readFilter, toggle, writeFilter } from "./invoices/filter";
import { COLUMNS, exportColumns, FIELD_OF_COLUMN, type Line, type LineChange, lineId, TypedWrong, valueToSend } from "./invoices/line";
import { LoadInvoices, PausedDag, SYNC_DAG } from "./invoices/LoadInvoices";
import "./invoices/invoices.css";
import { Tiles } from "./invoices/Tiles";
import { WhyDrawer } from "./invoices/WhyDrawer";

const ADDRESS = { filter: "", line: "", sort: "", columns: "" };

export default function Invoices() {
  const [address, change] = useAddress(ADDRESS);
  const queries = useQueryClient();
  const { may } = useMe();
  const grid = useRef<GridHandle<Line>>(null);
  const [selected, setSelected] = useState<Line[]>([]);
  const [conflict, setConflict] = useState<(Conflict & { answer: (line: Line | null) => void }) | null>(null);
  const [excluding, setExcluding] = useState<Line | null>(null);
  const [bulk, setBulk] = useState<BulkValues["action"] | null>(null);
  const [isLoading, setLoading] = useState(false);
  const [run, setRun] = useState<{ runId: string; title: string } | null>(null);

  const periods = useQuery({ queryKey: ["periods"], queryFn: () => get<Model<"Period">[]>("periods") });
  const newest = periods.data?.[0]?.billing_period;
  const filter = useMemo<LineFilter>(() => readFilter(address.filter) ?? (newest ? { periods: [newest] } : {}), [address.filter, newest]);
  const filterText = writeFilter(filter);
  const isReady = address.filter !== "" || periods.data !== undefined || periods.isError;
  const setFilter = useCallback((next: LineFilter) => change({ filter: writeFilter(next) }), [change]);

  // tiles and reasons stay to choose from while one of them narrows the grid
  const wide = writeFilter({ ...filter, outcomes: [], reason_codes: [] });
  const totals = useQuery({
    queryKey: ["line-totals", wide],
    queryFn: ({ signal }) => get<Model<"LineTotals">>("lines/totals", { filter: wide }, signal),
    enabled: isReady,
    placeholderData: (before) => before,
  });

  const load = useCallback(
    async ({ offset, limit, sort }: GridQuery, signal: AbortSignal) => {
      const page = await get<Model<"LinePage">>("lines", { filter: filterText, sort, offset, limit }, signal);
      return { total: page.total, rows: page.lines };
    },
    [filterText],
  );
  const [total, setTotal] = useState(0);
  const loadAndCount = useCallback(
    async (query: GridQuery, signal: AbortSignal) => {
      const page = await load(query, signal);
      setTotal(page.total);
      return page;
    },
    [load],
  );

  const refresh = useCallback(() => {
    void queries.invalidateQueries({ queryKey: ["line-totals"] });
    void queries.invalidateQueries({ queryKey: ["grid", "Invoice lines"] });
    void queries.invalidateQueries({ queryKey: ["why"] });
  }, [queries]);

  /** Stores values of one line; asks when somebody else was first. Gives back the line as it stands then. */
  const store = useCallback(async (line: Line, values: Omit<LineChange, "version">): Promise<Model<"LineChanged"> | Line> => {
    let seen = line;
    for (;;) {
      const sent = { ...values, version: seen.version } as LineChange;
      try {
        return await send<Model<"LineChanged">>("PATCH", `lines/${line.line_id}`, sent);
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 409 || !isLine(error.problem.current)) throw error;
        const theirs = error.problem.current;
        const before = seen;
        const mine = await new Promise<Line | null>((answer) => setConflict({ before, mine: sent, theirs, answer }));
        setConflict(null);
        if (mine === null) return theirs;
        seen = theirs;
      }
    }
  }, []);

  const changeLine = useCallback(
    async (line: Line, values: Omit<LineChange, "version">) => {
      const answer = await store(line, values);
      if ("released" in answer) toastReleased("Stored", answer.released);
      grid.current?.update(["line" in answer ? answer.line : answer]);
      refresh();
    },
    [store, refresh],
  );

  const storeEdits = useCallback(
    async (edits: Edit<Line>[]): Promise<Line[] | undefined> => {
      const byLine = new Map<number, { line: Line; values: Record<string, unknown> }>();
      try {
        for (const edit of edits) {
          const field = FIELD_OF_COLUMN[edit.field];
          if (field === undefined) continue;
          const of = byLine.get(edit.row.line_id) ?? { line: edit.row, values: {} };
          of.values[field] = await valueToSend(edit);
          byLine.set(edit.row.line_id, of);
        }
      } catch (error) {
        if (!(error instanceof TypedWrong)) throw error;
        toast("warning", "Nothing was stored", error.message);
        return undefined;
      }
      const many = [...byLine.values()];
      const [first] = many;
      if (first && many.length > MANY) {
        if (many.every(({ values }) => JSON.stringify(values) === JSON.stringify(first.values))) {
          const lineIds = many.map(({ line }) => line.line_id);
          const result = await changeAll(lineIds, first.values);
          const left = result.refused + result.conflicts;
          toast(left > 0 ? "warning" : "success", `${counted(result.changed, "line")} stored`, left > 0 ? `${counted(left, "line")} stay as they are.` : undefined);
          if (result.released) toastReleased("Decided again", result.released);
          refresh();
          return undefined;
        }
        toast("info", `Storing ${counted(many.length, "line")} ...`);
      }
      const changed: Line[] = [];
      const failed: string[] = [];
      let last: Model<"Released"> | null = null;
      for (const { line, values } of byLine.values()) {
        try {
          const answer = await store(line, values);
          changed.push("line" in answer ? answer.line : answer);
          if ("released" in answer) last = answer.released;
        } catch (error) {
          failed.push(error instanceof ApiError ? error.problem.message : String(error));
        }
      }
      if (failed.length > 0) {
        toast("error", byLine.size === 1 ? "The change was not stored" : `${failed.length} of ${counted(byLine.size, "line")} could not be changed`, [...new Set(failed)].slice(0, 3).join(" "));
      }
      if (byLine.size === 1 && last) toastReleased("Stored", last);
      else if (changed.length > 0 && byLine.size > 1) toast("success", `${counted(changed.length, "line")} stored`);
      refresh();
      return changed;
    },
    [store, refresh],
  );

  const afterBulk = useCallback(() => {
    grid.current?.clearSelection();
    refresh();
  }, [refresh]);

  const planAgain = async () => {
    try {
      const conf = filter.periods?.length ? { billing_periods: filter.periods } : {};
      const started = await triggerDag(SYNC_DAG, conf);
      setRun({ runId: started.dag_run_id, title: "Plan again" });
    } catch (error) {
      toastError(error, "The run could not be started");
    }
  };

  const exportUrl = (kind: "csv" | "xlsx") => apiUrl(`lines/export.${kind}`, { filter: filterText, sort: address.sort, columns: exportColumns(address.columns) });
  const onOpen = useCallback((line: Line) => change({ line: String(line.line_id) }), [change]);
  const openLine = Number.parseInt(address.line, 10);

  return (
    <Page
      title="Invoices"
      isFull
      actions={
        <>
          <Button variant="outline" onClick={() => setLoading(true)}>
            Load Invoices
          </Button>
          <Button variant="outline" onClick={planAgain} title="Plans what ConnectWise gets, with your changes">
            Plan again
          </Button>
          <Menu.Root>
            <Menu.Trigger asChild>
              <Button variant="outline">Export</Button>
            </Menu.Trigger>
            <Portal>
              <Menu.Positioner>
                <Menu.Content>
                  <Menu.Item value="csv" asChild>
                    <a href={exportUrl("csv")} download>
                      CSV, as filtered
                    </a>
                  </Menu.Item>
                  <Menu.Item value="xlsx" asChild>
                    <a href={exportUrl("xlsx")} download>
                      Excel, as filtered
                    </a>
                  </Menu.Item>
                </Menu.Content>
              </Menu.Positioner>
            </Portal>
          </Menu.Root>
        </>
      }
    >
      {run && (
        <>
          <PausedDag dagId={SYNC_DAG} />
          <RunProgress key={run.runId} dagId={SYNC_DAG} runId={run.runId} title={run.title} onEnd={refreshAll(queries)} />
        </>
      )}
      <Tiles totals={totals.data} chosen={filter.outcomes ?? []} onToggle={(outcome) => setFilter(toggle(filter, "outcomes", outcome))} />
      <FilterBar
        filter={filter}
        onChange={setFilter}
        onReset={() => setFilter({ periods: filter.periods })}
        periods={(periods.data ?? []).map((one) => one.billing_period)}
        totals={totals.data}
      />
      {isReady && (
        <Grid
          name="Invoice lines"
          columns={COLUMNS}
          rowId={lineId}
          query={filterText}
          load={loadAndCount}
          sort="line_id"
          onEdit={may("edit") ? storeEdits : undefined}
          isSelectable={may("edit")}
          onSelect={setSelected}
          onOpen={onOpen}
          openName="Why"
          handle={grid}
          tools={
            <HStack gap={1} ml={2} wrap="wrap">
              <GuardedButton permission="edit" size="xs" onClick={() => setBulk("set")}>
                Bulk update
              </GuardedButton>
              <GuardedButton permission="edit" size="xs" variant="outline" onClick={() => setBulk("apply_rules")}>
                Apply rules again
              </GuardedButton>
              <GuardedButton permission="edit" size="xs" variant="outline" onClick={() => setBulk("exclude")}>
                Exclude
              </GuardedButton>
            </HStack>
          }
          empty={
            narrowing(filter) > 0 ? (
              <Empty title="No line matches the filter">
                <Button variant="outline" onClick={() => setFilter({ periods: filter.periods })}>
                  Clear filter
                </Button>
              </Empty>
            ) : (
              <Empty
                title={filter.periods?.length === 1 ? `No invoice lines in ${periodName(filter.periods[0] as string)}` : "No invoice lines yet"}
                detail="Load the Verified invoices of a billing period from AppXite."
              >
                <Button onClick={() => setLoading(true)}>Load Invoices</Button>
              </Empty>
            )
          }
        />
      )}
      {isLoading && (
        <LoadInvoices
          onClose={() => setLoading(false)}
          onStarted={(runId, period) => {
            setRun({ runId, title: `Load Invoices of ${periodName(period)}` });
            setFilter({ periods: [period] });
          }}
        />
      )}
      {bulk && <BulkDialog filter={filter} chosen={selected} total={total} action={bulk} onClose={() => setBulk(null)} onDone={afterBulk} />}
      {Number.isInteger(openLine) && !excluding && (
        <WhyDrawer lineId={openLine} mayEdit={may("edit")} onClose={() => change({ line: "" })} onChange={changeLine} onExclude={setExcluding} />
      )}
      {excluding && (
        <ReasonDialog
          title="Exclude this line"
          confirm="Exclude"
          help="It stands on the line and in the audit trail."
          onClose={() => setExcluding(null)}
          onConfirm={(reason) => changeLine(excluding, { is_excluded: true, reason })}
        >
          It is not billed from ConnectWise. It stays in the proof as excluded, and can be included again.
        </ReasonDialog>
      )}
      {conflict && <ConflictDialog conflict={conflict} onMine={() => conflict.answer(conflict.theirs)} onTheirs={() => conflict.answer(null)} />}
    </Page>
  );
}

/** From how many lines on one value for all of them is one bulk change. */
const MANY = 5;
const ASK_AGAIN_MS = 1000;

async function changeAll(lineIds: number[], values: Record<string, unknown>): Promise<Model<"BulkResult">> {
  const request = { filter: { line_ids: lineIds }, values: { action: "set", ...values } };
  const { bulk_id } = await send<Model<"BulkPreview">>("POST", "bulk/preview", request);
  let result = await send<Model<"BulkResult">>("POST", `bulk/${bulk_id}/apply`);
  while (result.state === "running") {
    await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
    result = await get<Model<"BulkResult">>(`bulk/${bulk_id}`);
  }
  return result;
}

const refreshAll = (queries: ReturnType<typeof useQueryClient>) => () => void queries.invalidateQueries();

function isLine(value: unknown): value is Line {
  return value !== null && typeof value === "object" && "line_id" in value && "version" in value;
}
