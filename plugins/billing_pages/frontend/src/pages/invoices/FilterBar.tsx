import { Button, Flex, Input, NativeSelect } from "@chakra-ui/react";
import { useEffect, useState } from "react";
import { Combobox } from "../../components/Combobox";
import { get } from "../../lib/api";
import { count, period as periodName } from "../../lib/format";
import type { Model } from "../../models";
import { type LineFilter, narrowing } from "./filter";

function Select(props: { name: string; value: string; onChange: (value: string) => void; options: { value: string; label: string }[]; width: string }) {
  return (
    <NativeSelect.Root size="xs" width={props.width}>
      <NativeSelect.Field aria-label={props.name} value={props.value} onChange={(event) => props.onChange(event.target.value)}>
        {props.options.map((option) => (
          <option key={option.value} value={option.value}>
            {option.label}
          </option>
        ))}
      </NativeSelect.Field>
      <NativeSelect.Indicator />
    </NativeSelect.Root>
  );
}

async function searchOrganizations(text: string) {
  const page = await get<Model<"MappingPage">>("mappings/organizations", { q: text, limit: 30 });
  return page.rows.map((row) => ({ value: row.source_id, label: row.source_name ?? row.source_id, detail: row.source_id }));
}

/** What the grid shows: billing period, and what narrows it. */
export function FilterBar(props: {
  filter: LineFilter;
  onChange: (filter: LineFilter) => void;
  onReset: () => void;
  periods: string[];
  totals: Model<"LineTotals"> | undefined;
}) {
  const { filter, onChange, totals } = props;
  const [text, setText] = useState(filter.text ?? "");
  const [customers, setCustomers] = useState(0);
  useEffect(() => setText(filter.text ?? ""), [filter.text]);
  useEffect(() => {
    if (text === (filter.text ?? "")) return;
    const timer = setTimeout(() => onChange({ ...filter, text }), 300);
    return () => clearTimeout(timer);
  }, [text, filter, onChange]);

  const period = filter.periods?.length === 1 ? (filter.periods[0] as string) : filter.periods?.length ? "several" : "";
  const periods = [...new Set([...props.periods, ...(filter.periods ?? [])])].sort().reverse();
  const reasons = totals?.reasons ?? [];
  const reasonCodes = [...new Map(reasons.map((reason) => [reason.code, reason])).values()];
  const reason = filter.reason_codes?.[0] ?? "";
  const knownReason = reason === "" || reasonCodes.some((one) => one.code === reason);
  const chargeTypes = [...new Set([...(totals?.charge_types ?? []), ...(filter.charge_types ?? [])])];
  const others = [
    filter.invoice_number && `invoice ${filter.invoice_number}`,
    filter.subscription_id && `subscription ${filter.subscription_id}`,
    filter.offer_id && `offer ${filter.offer_id}`,
    filter.agreement_id && `agreement ${filter.agreement_id}`,
    filter.bound_key && "what one bound parks",
    filter.line_ids?.length && `${count(filter.line_ids.length)} chosen lines`,
    (filter.organization_ids?.length ?? 0) > 1 && `${filter.organization_ids?.length} organizations`,
  ].filter(Boolean);
  return (
    <Flex gap={2} wrap="wrap" align="center" role="search" aria-label="Filter lines" flexShrink={0}>
      <Select
        name="Billing period"
        width="9.5rem"
        value={period}
        onChange={(value) => onChange({ ...filter, periods: value === "" ? [] : [value] })}
        options={[
          { value: "", label: "All periods" },
          ...(period === "several" ? [{ value: "several", label: `${filter.periods?.length} periods` }] : []),
          ...periods.map((value) => ({ value, label: periodName(value) })),
        ]}
      />
      <Input size="xs" width="13rem" type="search" placeholder="Search customer, invoice, ..." aria-label="Search text" value={text} onChange={(event) => setText(event.target.value)} />
      <Flex width="12rem">
        <Combobox
          key={`${customers} ${filter.organization_ids?.join()}`}
          name="Organization"
          placeholder="Any organization"
          size="xs"
          search={searchOrganizations}
          text={filter.organization_ids?.length === 1 ? filter.organization_ids[0] : ""}
          onPick={(option) => {
            onChange({ ...filter, organization_ids: option ? [option.value] : [] });
            if (option === null) setCustomers((n) => n + 1);
          }}
        />
      </Flex>
      <Select
        name="Reason"
        width="13rem"
        value={reason}
        onChange={(value) => onChange({ ...filter, reason_codes: value === "" ? [] : [value] })}
        options={[
          { value: "", label: "Any reason" },
          ...(knownReason ? [] : [{ value: reason, label: reason.replaceAll("_", " ") }]),
          ...reasonCodes.map((one) => ({ value: one.code, label: `${one.title} (${count(one.lines)})` })),
        ]}
      />
      <Select
        name="Charge type"
        width="9rem"
        value={filter.charge_types?.[0] ?? ""}
        onChange={(value) => onChange({ ...filter, charge_types: value === "" ? [] : [value] })}
        options={[{ value: "", label: "Any charge type" }, ...chargeTypes.map((value) => ({ value, label: value }))]}
      />
      <Select
        name="Updated by"
        width="9rem"
        value={filter.user_updated === true ? "user" : filter.user_updated === false ? "system" : ""}
        onChange={(value) => onChange({ ...filter, user_updated: value === "" ? null : value === "user" })}
        options={[
          { value: "", label: "Any updates" },
          { value: "user", label: "User Updated" },
          { value: "system", label: "Not User Updated" },
        ]}
      />
      {others.length > 0 && <span>{others.join(", ")}</span>}
      {narrowing(filter) > 0 && (
        <Button size="xs" variant="ghost" onClick={props.onReset}>
          Clear filter
        </Button>
      )}
    </Flex>
  );
}
