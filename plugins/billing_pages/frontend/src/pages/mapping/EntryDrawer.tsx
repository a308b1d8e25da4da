import { Alert, Badge, Button, DataList, Field, Heading, HStack, NativeSelect, Skeleton, Stack, Text, Textarea } from "@chakra-ui/react";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { Drawer } from "../../components/Drawer";
import { counted, DateTime, moneyList } from "../../lib/format";
import { fetchSuggestions } from "./api";
import { decisionOf } from "./decision";
import { History } from "./History";
import type { Kind } from "./kinds";
import { StateBadge } from "./StateBadge";
import { SuggestionList } from "./SuggestionList";
import { TargetPicker } from "./TargetPicker";
import type { MappingDecision, MappingRow, MappingState, RecurringMode } from "./types";

interface Props {
  kind: Kind;
  row: MappingRow;
  refusal?: string;
  isSaving: boolean;
  onDecide: (decision: MappingDecision) => void;
  onCompanies: () => void;
  onFrequencies: () => void;
  onClose: () => void;
}

/** One entry: what it is, what waits for it, suggestions with their evidence, the decision, and its history. */
export function EntryDrawer(props: Props) {
  const { kind, row, refusal } = props;
  const frequency = row.billing_frequency;
  return (
    <Drawer title={[row.source_name ?? row.source_id, frequency].filter(Boolean).join(" · ")} onClose={props.onClose}>
      <Stack gap={6}>
        {refusal && (
          <Alert.Root status="info" size="sm">
            <Alert.Indicator />
            <Alert.Title>{refusal}</Alert.Title>
          </Alert.Root>
        )}
        <Facts kind={kind} row={row} />
        {kind.kind === "organizations" && (
          <HStack justify="space-between" borderWidth="1px" borderRadius="md" p={3}>
            <Text fontSize="sm">
              {row.selectors > 0
                ? `Spread over several companies by ${counted(row.selectors, "selector")}. They decide, not the company below.`
                : "All its lines go to one company. Some to another one?"}
            </Text>
            <Button size="xs" variant="outline" flexShrink={0} onClick={props.onCompanies}>
              Several companies…
            </Button>
          </HStack>
        )}
        {kind.kind === "offers" && frequency === "" && row.frequencies.length > 1 && (
          <HStack justify="space-between" borderWidth="1px" borderRadius="md" p={3}>
            <Text fontSize="sm">Billed as: {row.frequencies.join(", ")}. One of them as another product?</Text>
            <Button size="xs" variant="outline" flexShrink={0} onClick={props.onFrequencies}>
              By billing frequency…
            </Button>
          </HStack>
        )}
        {kind.hasSuggestions && row.state === "undecided" && frequency === "" && (
          <Section title="Suggestions">
            <Suggestions {...props} />
          </Section>
        )}
        <Section title="Decision">
          {/* Another stored version begins the form anew. */}
          <DecisionForm key={row.version} {...props} />
        </Section>
        <Section title="History">
          <History
            table={frequency ? "mapping.offer_variant_mapping" : kind.table}
            rowKey={row.source_id}
            only={frequency ? (change) => (change.after ?? change.before)?.billing_frequency === frequency : undefined}
          />
        </Section>
      </Stack>
    </Drawer>
  );
}

function Section({ title, children }: { title: string; children: React.ReactNode }) {
  return (
    <Stack as="section" gap={3}>
      <Heading as="h3" size="sm">
        {title}
      </Heading>
      {children}
    </Stack>
  );
}

function Facts({ kind, row }: { kind: Kind; row: MappingRow }) {
  const facts: [string, React.ReactNode][] = [
    ["State", <StateBadge key="state" state={row.state} />],
    ["Money that waits", row.held.length > 0 ? moneyList(row.held) : "none"],
    [`AppXite id`, [row.source_id, row.source_detail].filter(Boolean).join(" · ")],
    ["Status in AppXite", row.source_status],
    ["Billed as", row.billing_frequency || row.frequencies.join(", ")],
    ["Last invoice", row.last_invoiced_on],
    ["First seen", row.first_seen_at && <DateTime key="seen" at={row.first_seen_at} />],
    [
      "Decided",
      row.decided_by && (
        <span key="decided">
          {row.decided_by}, <DateTime at={row.decided_at} />
        </span>
      ),
    ],
  ];
  return (
    <DataList.Root orientation="horizontal" size="sm" aria-label={`About the ${kind.source}`}>
      {facts
        .filter(([, value]) => value)
        .map(([label, value]) => (
          <DataList.Item key={label}>
            <DataList.ItemLabel minW="36">{label}</DataList.ItemLabel>
            <DataList.ItemValue>{value}</DataList.ItemValue>
          </DataList.Item>
        ))}
    </DataList.Root>
  );
}

function Suggestions({ kind, row, refusal, onDecide }: Props) {
  const found = useQuery({
    queryKey: ["suggestions", kind.kind, row.source_id],
    queryFn: ({ signal }) => fetchSuggestions(kind.kind, [row.source_id], signal),
  });
  if (found.isPending) return <Skeleton height="90px" />;
  if (found.isError) return <Text color="fg.error">{found.error.message}</Text>;
  return (
    <SuggestionList
      suggestions={found.data[row.source_id] ?? []}
      target={kind.target}
      refusal={refusal}
      onTake={(one) => onDecide(decisionOf(row, "approved", { target_id: one.target_id }))}
    />
  );
}

function DecisionForm({ kind, row, refusal, isSaving, onDecide }: Props) {
  const canEdit = refusal === undefined;
  const [target, setTarget] = useState(
    row.target_id === null ? null : { id: row.target_id, name: row.target_name ?? `${kind.target} ${row.target_id}` },
  );
  const [mode, setMode] = useState<RecurringMode>(row.recurring_mode);
  const [note, setNote] = useState(row.note ?? "");
  const decideAs = (state: MappingState) =>
    onDecide(decisionOf(row, state, { target_id: target?.id ?? null, recurring_mode: mode, note: note.trim() || null }));
  const isAsStored =
    row.state === "approved" &&
    target?.id === row.target_id &&
    mode === row.recurring_mode &&
    note.trim() === (row.note ?? "");

  return (
    <Stack gap={4}>
      {row.target_unusable && (
        <Alert.Root status="warning" size="sm">
          <Alert.Indicator />
          <Alert.Title>
            {row.target_name ?? "The target"} cannot be used: {row.target_unusable}
          </Alert.Title>
        </Alert.Root>
      )}
      <Stack gap={1}>
        <Text fontWeight="medium" textTransform="capitalize">
          {kind.target}
        </Text>
        <TargetPicker
          kind={kind.targetKind}
          name={kind.target}
          value={target}
          onChange={setTarget}
          isDisabled={!canEdit}
          companyId={row.company_id}
        />
      </Stack>
      {kind.kind === "offers" && (
        <Field.Root disabled={!canEdit}>
          <Field.Label>Recurring lines</Field.Label>
          <NativeSelect.Root size="sm" disabled={!canEdit}>
            <NativeSelect.Field
              value={mode ?? ""}
              onChange={(event) => setMode((event.target.value || null) as RecurringMode)}
            >
              <option value="">{row.billing_frequency ? "As the offer" : "As the setting says"}</option>
              <option value="persistent">persistent: one Addition per subscription, prolonged each month</option>
              <option value="dated">dated: one Addition per line</option>
            </NativeSelect.Field>
            <NativeSelect.Indicator />
          </NativeSelect.Root>
        </Field.Root>
      )}
      <Field.Root disabled={!canEdit}>
        <Field.Label>Note</Field.Label>
        <Textarea size="sm" rows={2} maxLength={1000} value={note} onChange={(event) => setNote(event.target.value)} />
        <Field.HelperText>For colleagues. It is kept with the decision.</Field.HelperText>
      </Field.Root>
      <HStack wrap="wrap" title={canEdit ? undefined : refusal}>
        <Button
          size="sm"
          disabled={!canEdit || target === null || isAsStored}
          loading={isSaving}
          onClick={() => decideAs("approved")}
        >
          {row.state === "approved" ? "Save" : "Approve"}
        </Button>
        <Button
          size="sm"
          variant="outline"
          disabled={!canEdit || isSaving || row.state === "excluded"}
          onClick={() => decideAs("excluded")}
        >
          {row.state === "excluded" ? "Excluded" : "Exclude"}
        </Button>
        {row.state !== "undecided" && (
          <Button size="sm" variant="ghost" disabled={!canEdit || isSaving} onClick={() => decideAs("undecided")}>
            Take back
          </Button>
        )}
        {isAsStored && <Badge variant="surface">as stored</Badge>}
      </HStack>
      <Text fontSize="xs" color="fg.muted">
        {kind.kind === "contracts"
          ? "Excluded: the contract decides nothing, and its lines go where the rules say."
          : "Excluded: its lines are never billed. Take back: nobody has decided, its lines are held."}
      </Text>
    </Stack>
  );
}
