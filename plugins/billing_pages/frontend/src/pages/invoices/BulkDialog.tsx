// One change for many lines: choose what, look at what it would do, apply, read what became of each line.
import { Alert, Button, Checkbox, DataList, Field, Heading, HStack, Input, NativeSelect, Progress, RadioGroup, Stack, Table, Text, Textarea } from "@chakra-ui/react";
import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { Combobox } from "../../components/Combobox";
import { Dialog } from "../../components/Dialog";
import { ErrorBox } from "../../components/ErrorBox";
import { get, send } from "../../lib/api";
import { DATE_RULES, shortOf } from "../../lib/dateRules";
import { DateTime, count, counted, money, moneyList } from "../../lib/format";
import type { Model } from "../../models";
import type { LineFilter } from "./filter";
import { FIELD_TITLES, type Line, searchAgreements } from "./line";
import { readDate, readNumber } from "./values";

export type BulkValues = Model<"BulkValues">;
type Preview = Model<"BulkPreview">;
type Result = Model<"BulkResult">;

const ACTIONS: { value: BulkValues["action"]; label: string; help: string }[] = [
  { value: "set", label: "Set values", help: "The values that you tick, on every line." },
  { value: "reset", label: "Reset to system values", help: "Takes back everything that people typed on these lines." },
  { value: "apply_rules", label: "Apply rules again", help: "The charge types' rules of today; typed values stay." },
  { value: "exclude", label: "Exclude", help: "These lines are not billed from ConnectWise." },
  { value: "include", label: "Include again", help: "Takes an exclusion of these lines back." },
];

const isDateRule = (text: string) => DATE_RULES.some(({ rule }) => rule === text);

type Given = Partial<Record<"agreement_id" | "product_id" | "effective_date" | "cancelled_date" | "quantity" | "unit_price" | "invoice_description", string>>;
type GivenField = keyof Given;

export function BulkDialog(props: {
  filter: LineFilter;
  chosen: Line[];
  total: number;
  action: BulkValues["action"];
  onClose: () => void;
  onDone: (result: Result) => void;
}) {
  const [scope, setScope] = useState<"chosen" | "all">(props.chosen.length > 0 ? "chosen" : "all");
  const [action, setAction] = useState(props.action);
  const [given, setGiven] = useState<Given>({});
  const [reason, setReason] = useState("");
  const [preview, setPreview] = useState<Preview | null>(null);
  const [isApplying, setApplying] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [isBusy, setBusy] = useState(false);

  const look = async () => {
    setBusy(true);
    setError(null);
    try {
      const filter = scope === "chosen" ? { line_ids: props.chosen.map((line) => line.line_id) } : props.filter;
      const values = { action, ...(action === "set" ? toSend(given) : {}), ...(reason.trim() ? { reason: reason.trim() } : {}) };
      setPreview(await send<Preview>("POST", "bulk/preview", { filter, values }));
    } catch (problem) {
      setError(problem);
    } finally {
      setBusy(false);
    }
  };

  if (preview !== null && isApplying) return <Applying preview={preview} onClose={props.onClose} onDone={props.onDone} />;
  if (preview !== null) {
    return (
      <Dialog
        title="Bulk update: preview"
        size="xl"
        onClose={props.onClose}
        footer={
          <>
            <Button variant="outline" onClick={() => setPreview(null)}>
              Back
            </Button>
            <Button disabled={preview.lines === 0} onClick={() => setApplying(true)}>
              Change {counted(preview.lines, "line")}
            </Button>
          </>
        }
      >
        <PreviewOf preview={preview} />
      </Dialog>
    );
  }
  const hasValues = action !== "set" || Object.keys(given).length > 0;
  return (
    <Dialog
      title="Bulk update"
      size="lg"
      onClose={props.onClose}
      footer={
        <>
          <Button variant="outline" onClick={props.onClose}>
            Cancel
          </Button>
          <Button loading={isBusy} disabled={!hasValues || (action === "exclude" && reason.trim() === "")} onClick={look}>
            Preview
          </Button>
        </>
      }
    >
      <Stack gap={4}>
        {error !== null && <ErrorBox error={error} what="The preview could not be made" />}
        <Choice
          name="Which lines"
          value={scope}
          onChange={(value) => setScope(value as "chosen" | "all")}
          options={[
            { value: "chosen", label: props.chosen.length === 0 ? "Selected lines: none is selected" : `The ${counted(props.chosen.length, "selected line")}`, isDisabled: props.chosen.length === 0 },
            { value: "all", label: `Everything that the filter finds: ${counted(props.total, "line")}` },
          ]}
        />
        <Choice name="What to do" value={action} onChange={(value) => setAction(value as BulkValues["action"])} options={ACTIONS} />
        {action === "set" && <Values given={given} onChange={setGiven} sample={props.chosen[0]} />}
        {(action === "exclude" || action === "set") && (
          <Field.Root required={action === "exclude"}>
            <Field.Label>
              Reason <Field.RequiredIndicator fallback={<Text color="fg.muted"> (optional)</Text>} />
            </Field.Label>
            <Input size="sm" maxLength={1000} value={reason} onChange={(event) => setReason(event.target.value)} />
          </Field.Root>
        )}
      </Stack>
    </Dialog>
  );
}

function toSend(given: Given): Record<string, unknown> {
  const values: Record<string, unknown> = {};
  for (const [field, text] of Object.entries(given) as [GivenField, string][]) {
    const trimmed = text.trim();
    if (trimmed === "") values[field] = null;
    else if (field === "agreement_id" || field === "product_id") values[field] = Number(trimmed);
    else if (field === "quantity" || field === "unit_price") {
      const number = readNumber(trimmed);
      if (number === null) throw new Error(`${FIELD_TITLES[field]}: "${text}" is not a number that can be read one way only. Write it as 1234.50.`);
      values[field] = number;
    } else if (field === "effective_date" || field === "cancelled_date") values[field] = isDateRule(trimmed) ? trimmed : (readDate(trimmed) ?? trimmed);
    else values[field] = trimmed;
  }
  return values;
}

function Choice(props: { name: string; value: string; onChange: (value: string) => void; options: { value: string; label: string; help?: string; isDisabled?: boolean }[] }) {
  return (
    <Stack gap={1}>
      <Heading as="h3" size="sm">
        {props.name}
      </Heading>
      <RadioGroup.Root size="sm" value={props.value} aria-label={props.name} onValueChange={(event) => event.value && props.onChange(event.value)}>
        <Stack gap={1}>
          {props.options.map((option) => (
            <RadioGroup.Item key={option.value} value={option.value} disabled={option.isDisabled}>
              <RadioGroup.ItemHiddenInput />
              <RadioGroup.ItemIndicator />
              <RadioGroup.ItemText>
                {option.label}
                {option.help && (
                  <Text as="span" color="fg.muted" fontWeight="normal">
                    {" "}
                    {option.help}
                  </Text>
                )}
              </RadioGroup.ItemText>
            </RadioGroup.Item>
          ))}
        </Stack>
      </RadioGroup.Root>
    </Stack>
  );
}

async function searchTargets(kind: "agreements" | "products", text: string) {
  const targets = await get<Model<"Target">[]>(`targets/${kind}`, { q: text, limit: 30 });
  return targets.map((target) => ({ value: String(target.id), label: target.name, detail: target.detail, unusable: target.unusable }));
}

function Values({ given, onChange, sample }: { given: Given; onChange: (given: Given) => void; sample: Line | undefined }) {
  const tick = (field: GivenField, isOn: boolean) => {
    const next = { ...given };
    if (isOn) next[field] = field.endsWith("_date") ? "as_invoiced" : "";
    else delete next[field];
    onChange(next);
  };
  const give = (field: GivenField, text: string) => onChange({ ...given, [field]: text });
  return (
    <Stack gap={2}>
      <Text fontSize="sm" color="fg.muted">
        A ticked value that is left empty goes back to the system value.
      </Text>
      {(Object.keys(FIELD_TITLES) as GivenField[]).map((field) => {
        const isOn = given[field] !== undefined;
        return (
          <HStack key={field} align="center" minH="32px" gap={3}>
            <Checkbox.Root size="sm" width="10rem" flexShrink={0} checked={isOn} onCheckedChange={(event) => tick(field, event.checked === true)}>
              <Checkbox.HiddenInput />
              <Checkbox.Control />
              <Checkbox.Label>{FIELD_TITLES[field]}</Checkbox.Label>
            </Checkbox.Root>
            {isOn && field === "agreement_id" && (
              <Combobox
                name="Agreement"
                scope={sample ? String(sample.line_id) : "all"}
                search={(text) => (sample ? searchAgreements(sample, text) : searchTargets("agreements", text))}
                onPick={(option) => give(field, option?.value ?? "")}
              />
            )}
            {isOn && field === "product_id" && <Combobox name="Product" search={(text) => searchTargets("products", text)} onPick={(option) => give(field, option?.value ?? "")} />}
            {isOn && field.endsWith("_date") && <DayOrRule name={FIELD_TITLES[field]} value={given[field] ?? ""} onChange={(text) => give(field, text)} />}
            {isOn && (field === "quantity" || field === "unit_price") && (
              <Input size="sm" inputMode="decimal" aria-label={FIELD_TITLES[field]} value={given[field]} onChange={(event) => give(field, event.target.value)} />
            )}
            {isOn && field === "invoice_description" && (
              <Textarea size="sm" rows={2} maxLength={5900} aria-label={FIELD_TITLES[field]} value={given[field]} onChange={(event) => give(field, event.target.value)} />
            )}
          </HStack>
        );
      })}
    </Stack>
  );
}

function DayOrRule({ name, value, onChange }: { name: string; value: string; onChange: (value: string) => void }) {
  const isRule = isDateRule(value);
  return (
    <HStack flex="1">
      <NativeSelect.Root size="sm" flex="1">
        <NativeSelect.Field aria-label={`${name}: rule`} value={isRule ? value : ""} onChange={(event) => onChange(event.target.value)}>
          {DATE_RULES.map(({ rule }) => (
            <option key={rule} value={rule}>
              {shortOf(rule)}
            </option>
          ))}
          <option value="">this day, or the system value</option>
        </NativeSelect.Field>
        <NativeSelect.Indicator />
      </NativeSelect.Root>
      {!isRule && <Input size="sm" flex="1" type="date" aria-label={name} value={value} onChange={(event) => onChange(event.target.value)} />}
    </HStack>
  );
}

function PreviewOf({ preview }: { preview: Preview }) {
  return (
    <Stack gap={4}>
      <Text fontSize="md">
        <strong>{counted(preview.lines, "line")}</strong> of {counted(preview.customers, "customer")} would change
        {preview.money.length > 0 && <>: {preview.money.map((sum) => money(sum.amount, sum.currency)).join(" · ")}</>}.
      </Text>
      <DataList.Root orientation="horizontal" size="md">
        <DataList.Item>
          <DataList.ItemLabel>Chosen</DataList.ItemLabel>
          <DataList.ItemValue>{count(preview.chosen)}</DataList.ItemValue>
        </DataList.Item>
        <DataList.Item>
          <DataList.ItemLabel>Already so</DataList.ItemLabel>
          <DataList.ItemValue>{count(preview.unchanged)}</DataList.ItemValue>
        </DataList.Item>
        {preview.refused.map((refusal) => (
          <DataList.Item key={refusal.why}>
            <DataList.ItemLabel>Cannot change</DataList.ItemLabel>
            <DataList.ItemValue>
              {count(refusal.lines)}: {refusal.why}
            </DataList.ItemValue>
          </DataList.Item>
        ))}
      </DataList.Root>
      {preview.sample.length > 0 && (
        <>
          <Heading as="h3" size="sm">
            {preview.sample.length < preview.lines ? "Some of them, as they are now" : "As they are now"}
          </Heading>
          <Table.ScrollArea maxH="40vh" borderWidth={1} borderRadius="md">
            <Table.Root size="sm" stickyHeader>
              <Table.Header>
                <Table.Row>
                  {["Organization", "Invoice", "Subscription", "Agreement", "Effective", "Cancelled", "Quantity", "Total"].map((title) => (
                    <Table.ColumnHeader key={title}>{title}</Table.ColumnHeader>
                  ))}
                </Table.Row>
              </Table.Header>
              <Table.Body>
                {preview.sample.map((line) => (
                  <Table.Row key={line.line_id}>
                    <Table.Cell>{line.organization_name}</Table.Cell>
                    <Table.Cell>{line.invoice_number}</Table.Cell>
                    <Table.Cell>{line.subscription_name}</Table.Cell>
                    <Table.Cell>{line.agreement_name}</Table.Cell>
                    <Table.Cell>{line.effective_date}</Table.Cell>
                    <Table.Cell>{line.cancelled_date}</Table.Cell>
                    <Table.Cell textAlign="end">{line.sent_quantity}</Table.Cell>
                    <Table.Cell textAlign="end">{money(line.total_price, line.currency)}</Table.Cell>
                  </Table.Row>
                ))}
              </Table.Body>
            </Table.Root>
          </Table.ScrollArea>
        </>
      )}
      <Text fontSize="sm" color="fg.muted">
        The lines are fixed now: lines that are loaded later are not changed. The preview ends <DateTime at={preview.expires_at} relative />.
      </Text>
    </Stack>
  );
}

function Applying({ preview, onClose, onDone }: { preview: Preview; onClose: () => void; onDone: (result: Result) => void }) {
  const path = `bulk/${preview.bulk_id}`;
  // applied once, also under React's strict mode, which runs effects twice
  const started = useRef(false);
  const [first, setFirst] = useState<Result | null>(null);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    if (started.current) return;
    started.current = true;
    send<Result>("POST", `${path}/apply`).then(setFirst, setError);
  }, [path]);
  const { data } = useQuery({
    queryKey: ["bulk", preview.bulk_id],
    queryFn: () => get<Result>(path),
    enabled: first?.state === "running",
    refetchInterval: (query) => (query.state.data?.state === "running" || query.state.data === undefined ? 1000 : false),
  });
  const result = data ?? first;
  const isOver = result !== null && result.state !== "running";
  const told = useRef(false);
  useEffect(() => {
    if (!isOver || told.current) return;
    told.current = true;
    onDone(result);
  }, [isOver, result, onDone]);
  const [isSaving, setSaving] = useState(false);
  const download = async () => {
    setSaving(true);
    try {
      await saveReport(preview.bulk_id);
    } catch (problem) {
      setError(problem);
    } finally {
      setSaving(false);
    }
  };
  return (
    <Dialog
      title="Bulk update"
      onClose={onClose}
      footer={
        <>
          {isOver && (
            <Button variant="outline" loading={isSaving} onClick={download}>
              Download report
            </Button>
          )}
          <Button onClick={onClose}>{isOver ? "Done" : "Go on in the background"}</Button>
        </>
      }
    >
      <Stack gap={4}>
        {error !== null && <ErrorBox error={error} what="The bulk update did not go through" />}
        {error === null && !isOver && (
          <>
            <Progress.Root
              value={result ? Math.min(100, (100 * (result.changed + result.unchanged + result.conflicts + result.refused)) / Math.max(1, preview.chosen)) : null}
              aria-label="Bulk update"
            >
              <Progress.Track>
                <Progress.Range />
              </Progress.Track>
            </Progress.Root>
            <Text role="status">Changing {counted(preview.lines, "line")} ...</Text>
          </>
        )}
        {isOver && (
          <>
            <Alert.Root status={result.state === "failed" ? "error" : result.conflicts + result.refused > 0 ? "warning" : "success"}>
              <Alert.Indicator />
              <Alert.Content>
                <Alert.Title>{result.state === "failed" ? "It failed" : `${counted(result.changed, "line")} changed`}</Alert.Title>
                <Alert.Description>
                  {[
                    result.message,
                    result.unchanged > 0 && `${counted(result.unchanged, "line")} were already so.`,
                    result.refused > 0 && `${counted(result.refused, "line")} could not change.`,
                    result.conflicts > 0 && `${counted(result.conflicts, "line")} stay as they are: somebody else changed them after the preview.`,
                  ]
                    .filter(Boolean)
                    .join(" ")}
                </Alert.Description>
              </Alert.Content>
            </Alert.Root>
            {result.released && (result.released.released.length > 0 || result.released.held.length > 0) && (
              <Text>
                {result.released.released.length > 0 && <>{moneyList(result.released.released)} released. </>}
                {result.released.held.length > 0 && <>{moneyList(result.released.held)} held now.</>}
              </Text>
            )}
          </>
        )}
      </Stack>
    </Dialog>
  );
}

const REPORT_PAGE = 1000;

/** The report as CSV, page by page from the API; texts that a spreadsheet would run as formulas are quoted. */
async function saveReport(bulkId: number): Promise<void> {
  const rows: string[][] = [["line_id", "organization", "invoice", "subscription", "status", "detail"]];
  for (let offset = 0; ; offset += REPORT_PAGE) {
    const page = await get<Model<"BulkLinePage">>(`bulk/${bulkId}/lines`, { offset, limit: REPORT_PAGE });
    for (const line of page.lines) {
      rows.push([String(line.line_id), line.organization_name, line.invoice_number ?? "", line.subscription_name ?? "", line.status, line.detail ?? ""]);
    }
    if (offset + REPORT_PAGE >= page.total) break;
  }
  const cell = (text: string) => `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
  const csv = `\ufeff${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv], { type: "text/csv" }));
  link.download = `bulk-update-${bulkId}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
