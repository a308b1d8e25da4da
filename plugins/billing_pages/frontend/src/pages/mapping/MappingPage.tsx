import { Button, HStack, Input, NativeSelect, SegmentGroup, Switch, Text } from "@chakra-ui/react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback, useMemo, useRef, useState } from "react";

import { ConfirmDialog, Dialog } from "../../components/Dialog";
import { Empty } from "../../components/Empty";
import { type Edit, Grid, type GridHandle, type GridQuery } from "../../components/Grid";
import { GuardedButton, useWhyNot } from "../../components/GuardedButton";
import { Page } from "../../components/Page";
import { toastReleased } from "../../components/released";
import { useAddress } from "../../lib/address";
import { count } from "../../lib/format";
import { fetchMappings, fetchTargets } from "./api";
import { ApproveDialog } from "./ApproveDialog";
import { columnsOf, keyOf, nameOf } from "./columns";
import { decisionOf } from "./decision";
import { EntryDrawer } from "./EntryDrawer";
import { FrequenciesDialog } from "./FrequenciesDialog";
import type { Kind } from "./kinds";
import { SelectorsDrawer } from "./SelectorsDrawer";
import { SyncButton, SyncProgress } from "./SyncReferenceData";
import { type Chosen, TargetPicker } from "./TargetPicker";
import type { MappingDecision, MappingPageData, MappingRow, MappingState, Suggestion } from "./types";
import { UnstoredDialog } from "./UnstoredDialog";
import { useDecide } from "./useDecide";

const DEFAULTS = { q: "", state: "all", held: "", window: "", entry: "", companies: "" };
const STATES: (MappingState | "all")[] = ["all", "undecided", "approved", "excluded"];
const WINDOWS = ["1", "2", "3", "6", "12", "15"];
const AT_ONCE = 1000;
type Doing = "strong" | "approve" | "exclude" | "take back" | "target" | null;

/** A mapping grid: what becomes what, the money that waits for it, suggestions, and the decisions. */
export function MappingPage({ kind }: { kind: Kind }) {
  const [state, change] = useAddress(DEFAULTS);
  const refusal = useWhyNot("edit") ?? undefined;
  const queries = useQueryClient();
  const { decide, decideNow, isDeciding, unstored, forgetUnstored } = useDecide(kind);
  const [selected, setSelected] = useState<MappingRow[]>([]);
  const [doing, setDoing] = useState<Doing>(null);
  const [frequenciesOf, setFrequenciesOf] = useState<MappingRow | null>(null);
  const grid = useRef<GridHandle<MappingRow>>(null);

  const filter = { q: state.q, onlyHeld: state.held === "yes", windowMonths: state.window };
  const countsKey = ["mapping-counts", kind.kind, filter];
  const counts = useQuery<MappingPageData["counts"]>({ queryKey: countsKey, queryFn: () => ({}) as MappingPageData["counts"], enabled: false });
  const load = async ({ offset, limit, sort }: GridQuery, signal: AbortSignal) => {
    const page = await fetchMappings(kind.kind, { ...filter, state: state.state, sort, offset, limit }, signal);
    queries.setQueryData(countsKey, page.counts);
    return page;
  };

  // The columns stay the same while what they call changes.
  const take = useRef<(row: MappingRow, suggestion: Suggestion) => void>(() => {});
  take.current = (row, suggestion) => decideNow([decisionOf(row, "approved", { target_id: suggestion.target_id })]);
  const columns = useMemo(
    () => columnsOf(kind, { onTake: (row, suggestion) => take.current(row, suggestion), refusal }),
    [kind, refusal],
  );

  const open = useCallback(
    (row: MappingRow) => {
      queries.setQueryData(["mapping-entry", kind.kind, keyOf(row)], row);
      change({ entry: keyOf(row) });
    },
    [queries, kind.kind, change],
  );
  const entry = useQuery({
    queryKey: ["mapping-entry", kind.kind, state.entry],
    queryFn: async ({ signal }) => {
      const q = state.entry.split("|")[0] ?? "";
      const page = await fetchMappings(
        kind.kind,
        { q, state: "all", onlyHeld: false, windowMonths: "", sort: "source_name", offset: 0, limit: 100 },
        signal,
      );
      return page.rows.find((row) => keyOf(row) === state.entry) ?? null;
    },
    enabled: state.entry !== "",
  });

  const edit = async (edits: Edit<MappingRow>[]): Promise<MappingRow[] | undefined> => {
    const items = await decisionsOf(kind, edits);
    const { results } = await decide(items);
    return results.flatMap((one) => (one.row ? [one.row] : []));
  };
  const decideSelected = async (items: MappingDecision[]) => {
    await decide(items);
    grid.current?.clearSelection();
  };

  return (
    <Page
      title={kind.title}
      detail={kind.intro}
      isFull
      actions={
        <SyncButton name={kind.kind === "offers" ? "Load Products" : "Sync Organizations"} asksWindow={kind.kind === "offers"} />
      }
    >
      <SyncProgress name={kind.kind === "offers" ? "Load Products" : "Sync Organizations"} />
      <HStack wrap="wrap" gap={3} flexShrink={0}>
        <SegmentGroup.Root
          size="sm"
          value={state.state}
          onValueChange={({ value }) => change({ state: value ?? "all" })}
          aria-label="State"
        >
          <SegmentGroup.Indicator />
          {STATES.map((one) => (
            <SegmentGroup.Item key={one} value={one}>
              <SegmentGroup.ItemText>
                {one}
                {counts.data && ` (${count(countOf(counts.data, one))})`}
              </SegmentGroup.ItemText>
              <SegmentGroup.ItemHiddenInput />
            </SegmentGroup.Item>
          ))}
        </SegmentGroup.Root>
        <Input
          size="sm"
          width="56"
          type="search"
          placeholder="Name or id"
          aria-label={`Search ${kind.sources}`}
          value={state.q}
          onChange={(event) => change({ q: event.target.value })}
        />
        <Switch.Root checked={state.held === "yes"} onCheckedChange={({ checked }) => change({ held: checked ? "yes" : "" })}>
          <Switch.HiddenInput />
          <Switch.Control />
          <Switch.Label>Money waits</Switch.Label>
        </Switch.Root>
        {kind.kind === "offers" && (
          <NativeSelect.Root size="sm" width="48">
            <NativeSelect.Field aria-label="Invoiced within" value={state.window} onChange={(event) => change({ window: event.target.value })}>
              <option value="">Invoiced at any time</option>
              {WINDOWS.map((one) => (
                <option key={one} value={one}>
                  {one === "1" ? "Invoiced this month" : `Invoiced within ${one} months`}
                </option>
              ))}
            </NativeSelect.Field>
            <NativeSelect.Indicator />
          </NativeSelect.Root>
        )}
      </HStack>
      <Grid
        name={kind.title}
        columns={columns}
        rowId={keyOf}
        query={{ ...filter, state: state.state }}
        load={load}
        sort="-held"
        isSelectable
        onSelect={setSelected}
        onOpen={open}
        openName="Open"
        onEdit={refusal === undefined ? edit : undefined}
        handle={grid}
        tools={
          <HStack wrap="wrap" gap={2}>
            {kind.hasSuggestions && selected.length === 0 && (
              <GuardedButton permission="edit" size="2xs" variant="outline" onClick={() => setDoing("strong")}>
                Approve strong suggestions…
              </GuardedButton>
            )}
            {selected.length > 0 && (
              <>
                <GuardedButton permission="edit" size="2xs" onClick={() => setDoing("approve")}>
                  Approve…
                </GuardedButton>
                <GuardedButton permission="edit" size="2xs" variant="outline" onClick={() => setDoing("target")}>
                  Approve for one {kind.target}…
                </GuardedButton>
                <GuardedButton permission="edit" size="2xs" variant="outline" onClick={() => setDoing("exclude")}>
                  Exclude…
                </GuardedButton>
                <GuardedButton permission="edit" size="2xs" variant="outline" onClick={() => setDoing("take back")}>
                  Take back…
                </GuardedButton>
                <Button size="2xs" variant="ghost" onClick={() => grid.current?.clearSelection()}>
                  Clear selection
                </Button>
              </>
            )}
          </HStack>
        }
        empty={<NothingFound kind={kind} isFiltered={state.q !== "" || state.held !== "" || state.state !== "all" || state.window !== ""} onReset={() => change({ q: "", held: "", state: "all", window: "" })} />}
      />
      {state.entry !== "" && entry.data && state.companies === "" && frequenciesOf === null && (
        <EntryDrawer
          kind={kind}
          row={entry.data}
          refusal={refusal}
          isSaving={isDeciding}
          onDecide={(decision) => decideNow([decision])}
          onCompanies={() => change({ companies: entry.data?.source_id ?? "" })}
          onFrequencies={() => setFrequenciesOf(entry.data ?? null)}
          onClose={() => change({ entry: "" })}
        />
      )}
      {state.entry !== "" && entry.data === null && (
        <Dialog title="Not found" onClose={() => change({ entry: "" })}>
          <Text>
            There is no {kind.source} {state.entry}. It may be new: {kind.kind === "offers" ? "Load Products" : "Sync Organizations"} reads
            them.
          </Text>
        </Dialog>
      )}
      {frequenciesOf && (
        <FrequenciesDialog
          row={frequenciesOf}
          refusal={refusal}
          onDecide={(decision) => decide([decision])}
          onClose={() => setFrequenciesOf(null)}
        />
      )}
      {state.companies !== "" && (
        <SelectorsDrawer
          organizationId={state.companies}
          refusal={refusal}
          onClose={() => change({ companies: "" })}
          onReleased={(released) => toastReleased("Companies stored", released)}
        />
      )}
      {doing === "strong" && (
        <StrongSuggestions kind={kind} filter={filter} onDecide={(items) => decide(items)} onClose={() => setDoing(null)} />
      )}
      {doing === "approve" && (
        <ApproveDialog
          kind={kind}
          title={`Approve ${selected.length === 1 ? kind.source : kind.sources}`}
          rows={selected}
          onDecide={decideSelected}
          onClose={() => setDoing(null)}
        />
      )}
      {doing === "target" && (
        <TargetDialog kind={kind} rows={selected} onDecide={decideSelected} onClose={() => setDoing(null)} />
      )}
      {(doing === "exclude" || doing === "take back") && (
        <ConfirmDialog
          title={doing === "exclude" ? `Exclude ${selected.length} ${selected.length === 1 ? kind.source : kind.sources}?` : `Take ${selected.length} decisions back?`}
          confirm={doing === "exclude" ? "Exclude" : "Take back"}
          isDanger={doing === "exclude"}
          onConfirm={() => decideSelected(selected.map((row) => decisionOf(row, doing === "exclude" ? "excluded" : "undecided")))}
          onClose={() => setDoing(null)}
        >
          <Text>
            {doing === "exclude"
              ? kind.kind === "contracts"
                ? "They decide nothing any more; their lines go where the rules say."
                : "Their lines are not billed, from the next decision on. What is delivered stays."
              : "Nobody has decided them any more: their lines are held."}
          </Text>
          <Text mt={2} color="fg.muted">
            {selected.slice(0, 10).map(nameOf).join(", ")}
            {selected.length > 10 && ` and ${selected.length - 10} others`}
          </Text>
        </ConfirmDialog>
      )}
      {unstored.length > 0 && (
        <UnstoredDialog
          kind={kind}
          unstored={unstored}
          isDeciding={isDeciding}
          onDecide={(items) => decideNow(items)}
          onClose={forgetUnstored}
        />
      )}
    </Page>
  );
}

function countOf(counts: MappingPageData["counts"], state: MappingState | "all"): number {
  if (state !== "all") return counts[state] ?? 0;
  return Object.values(counts).reduce((sum, one) => sum + (one ?? 0), 0);
}

/** What edits of cells mean: a target that is typed or pasted approves the row, none takes the decision back. */
async function decisionsOf(kind: Kind, edits: Edit<MappingRow>[]): Promise<MappingDecision[]> {
  const ids = new Map<string, number>();
  for (const text of new Set(edits.filter((one) => one.field === "target_name" && one.text !== "").map((one) => one.text))) {
    if (/^\d+$/.test(text)) ids.set(text, Number(text));
    else {
      // Pasted names: only a name that exactly one usable target has.
      const named = (await fetchTargets(kind.targetKind, text)).filter((one) => one.name === text && one.unusable === null);
      if (named.length !== 1 || !named[0])
        throw new Error(`${named.length === 0 ? "No" : "More than one"} ${kind.target} that can be used is called “${text}”. Paste its id.`);
      ids.set(text, named[0].id);
    }
  }
  const byRow = new Map<string, MappingDecision>();
  for (const { row, field, text } of edits) {
    const before = byRow.get(keyOf(row)) ?? decisionOf(row, row.state);
    if (field === "note") byRow.set(keyOf(row), { ...before, note: text.trim() || null });
    else if (text === "") byRow.set(keyOf(row), { ...before, state: "undecided", target_id: null });
    else byRow.set(keyOf(row), { ...before, state: "approved", target_id: ids.get(text) ?? null });
  }
  return [...byRow.values()];
}

function NothingFound({ kind, isFiltered, onReset }: { kind: Kind; isFiltered: boolean; onReset: () => void }) {
  if (isFiltered)
    return (
      <Empty title={`No ${kind.source} fits`} detail="Nothing is like that with these filters.">
        <Button size="sm" variant="outline" onClick={onReset}>
          Show all
        </Button>
      </Empty>
    );
  return (
    <Empty
      title={`No ${kind.sources} are known yet`}
      detail={
        kind.kind === "offers"
          ? "Offers are listed once they stand on an invoice of yours. Load Products looks through the invoices of some months."
          : `Sync Organizations reads organizations, contracts and companies of both systems.`
      }
    >
      <SyncButton name={kind.kind === "offers" ? "Load Products" : "Sync Organizations"} asksWindow={kind.kind === "offers"} />
    </Empty>
  );
}

interface StrongProps {
  kind: Kind;
  filter: { q: string; onlyHeld: boolean; windowMonths: string };
  onDecide: (items: MappingDecision[]) => Promise<unknown>;
  onClose: () => void;
}

/** All undecided entries of the filter whose best suggestion is the only strong one, to look through and approve. */
function StrongSuggestions({ kind, filter, onDecide, onClose }: StrongProps) {
  const found = useQuery({
    queryKey: ["grid", kind.title, "strong", filter],
    queryFn: ({ signal }) =>
      fetchMappings(kind.kind, { ...filter, state: "undecided", sort: "-held", offset: 0, limit: AT_ONCE }, signal),
    staleTime: 0,
    refetchOnMount: "always",
  });
  const rows = found.data?.rows.filter((row) => row.best?.is_only_strong && row.best.unusable === null && !row.billing_frequency);
  if (rows === undefined || rows.length === 0)
    return (
      <Dialog title="Strong suggestions" onClose={onClose}>
        <Text role="status">
          {found.isError
            ? found.error.message
            : rows === undefined
              ? "Looking…"
              : `Among the undecided ${kind.sources} shown, none has exactly one strong suggestion. Open one to see all that was found for it.`}
        </Text>
      </Dialog>
    );
  return (
    <ApproveDialog
      kind={kind}
      title={`${count(rows.length)} strong ${rows.length === 1 ? "suggestion" : "suggestions"}`}
      // What is proposed here is the suggestion, never an earlier target.
      rows={rows.map((row) => ({ ...row, target_id: null, target_unusable: null }))}
      onDecide={onDecide}
      onClose={onClose}
    />
  );
}

function TargetDialog(props: {
  kind: Kind;
  rows: MappingRow[];
  onDecide: (items: MappingDecision[]) => Promise<unknown>;
  onClose: () => void;
}) {
  const { kind, rows, onDecide, onClose } = props;
  const [target, setTarget] = useState<Chosen | null>(null);
  return (
    <ConfirmDialog
      title={`One ${kind.target} for ${rows.length} ${rows.length === 1 ? kind.source : kind.sources}`}
      confirm="Approve"
      isDisabled={target === null}
      onConfirm={() => onDecide(rows.map((row) => decisionOf(row, "approved", { target_id: target?.id ?? null })))}
      onClose={onClose}
    >
      <TargetPicker kind={kind.targetKind} name={kind.target} value={null} onChange={setTarget} />
      <Text mt={3} color="fg.muted">
        {rows.slice(0, 10).map(nameOf).join(", ")}
        {rows.length > 10 && ` and ${rows.length - 10} others`}
      </Text>
    </ConfirmDialog>
  );
}
