import { Field, SegmentGroup, Stack, Text, Textarea } from "@chakra-ui/react";
import { useState } from "react";
import { Combobox } from "../../components/Combobox";
import { ConfirmDialog } from "../../components/Dialog";
import { get } from "../../lib/api";
import type { Model } from "../../models";
import { usePause } from "./queries";

const searchCompanies = async (text: string) => {
  const companies = await get<Model<"Target">[]>("targets/companies", { q: text, limit: 30 });
  return companies.map((company) => ({ value: String(company.id), label: company.name, detail: company.detail }));
};

/** The stop button's dialog: stop all delivery, or that to one customer; a reason is needed. */
export function StopDialog({ onClose }: { onClose: () => void }) {
  const [scope, setScope] = useState<"all" | "one">("all");
  const [company, setCompany] = useState<{ id: number; name: string } | null>(null);
  const [reason, setReason] = useState("");
  const pause = usePause();

  return (
    <ConfirmDialog
      title="Stop delivery"
      confirm={scope === "all" ? "Stop all delivery" : `Stop delivery to ${company?.name ?? "the customer"}`}
      isDanger
      isDisabled={reason.trim() === "" || (scope === "one" && company === null)}
      onConfirm={() => pause.mutateAsync({ company_id: scope === "all" ? null : (company?.id ?? null), reason: reason.trim() })}
      onClose={onClose}
    >
      <Stack gap="4">
        <Text>
          A run that is delivering stops before its next write. Nothing that stands in ConnectWise is changed, and nothing is lost: what waits is delivered once somebody lets it go on.
        </Text>
        <SegmentGroup.Root value={scope} onValueChange={(change) => setScope(change.value === "one" ? "one" : "all")} aria-label="Whom it concerns" size="sm" alignSelf="start">
          <SegmentGroup.Indicator />
          <SegmentGroup.Items items={[{ value: "all", label: "All customers" }, { value: "one", label: "One customer" }]} />
        </SegmentGroup.Root>
        {scope === "one" && (
          <Combobox
            name="Customer (company in ConnectWise)"
            placeholder="Customer: type a part of its name"
            search={searchCompanies}
            onPick={(option) => setCompany(option && { id: Number(option.value), name: option.label })}
          />
        )}
        <Field.Root required>
          <Field.Label>
            Reason <Field.RequiredIndicator />
          </Field.Label>
          <Textarea value={reason} onChange={(event) => setReason(event.target.value)} maxLength={1000} rows={2} />
          <Field.HelperText>Everybody sees it on this page and in the logs.</Field.HelperText>
        </Field.Root>
      </Stack>
    </ConfirmDialog>
  );
}
