// What a person does about an Addition that is refused, in conflict, or not as it was delivered.
import { RadioGroup, Stack, Text } from "@chakra-ui/react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { send } from "../lib/api";
import { counted, money } from "../lib/format";
import { linesLink } from "../lib/links";
import type { Model } from "../models";
import { ConfirmDialog } from "./Dialog";
import { TextLink } from "./TextLink";
import { toast } from "./Toaster";

export type Unsettled = Model<"UnsettledAddition">;
type Way = Unsettled["ways"][number];

const NEXT = "The next run, or “Plan again”, plans it.";
const WAYS: Record<Way, { label: string; help: (addition: Unsettled) => string; done: string; next: (lines: number) => string }> = {
  retry: {
    label: "No invoice has it: try again",
    help: (addition) =>
      addition.is_compared
        ? "It is mended in ConnectWise. The next run compares it anew; nobody's change is overwritten: if one still stands, the Addition is in conflict again. If an invoice has the line after all, it is billed twice."
        : "The cause is mended. The next run writes AppXite's values, also over what somebody typed there since. If an invoice has the line after all, it is billed twice.",
    done: "It is tried again",
    next: () => NEXT,
  },
  confirm: {
    label: "ConnectWise's invoice has it",
    help: (addition) =>
      `You have seen it there. ${counted(addition.confirmed_line_ids.length, "line")}, ${money(addition.confirmed_amount, addition.currency) || "no money"}, count as delivered and proven, and are not billed again. This cannot be taken back.`,
    done: "It counts as delivered",
    next: (lines) => `${counted(lines, "line")} as delivered and proven.`,
  },
  anew: {
    label: "AppXite's values shall stand",
    help: (addition) =>
      `Its lines that are not proven are decided again. The next run writes AppXite's values over what stands in ConnectWise, and creates the Addition again only if none with its marker is found there. Plans that were made before leave it alone. ${
        addition.is_invoiced ? "ConnectWise has invoiced its cycle since: if that invoice has the line, this bills it a second time." : "If an invoice has the line, it is billed twice."
      }`,
    done: "It is made anew",
    next: () => NEXT,
  },
};

export const STATES: Record<Unsettled["state"], string> = {
  refused: "refused by ConnectWise",
  conflict: "in conflict",
  delivered: "not as delivered",
};

/** Its name in a sentence. */
export const nameOf = (addition: Unsettled) =>
  addition.connectwise_addition_id === null ? "the Addition" : `Addition ${addition.connectwise_addition_id}`;

/** Asks what was found in ConnectWise, and does what follows from it. */
export function SettleDialog({ addition, onClose }: { addition: Unsettled; onClose: () => void }) {
  const client = useQueryClient();
  const [way, setWay] = useState<Way | null>(null);
  const settle = useMutation({
    mutationFn: (chosen: Way) =>
      send<Model<"Settled">>("POST", "additions/settle", { delivery_key: addition.delivery_key, way: chosen, state: addition.state, plan_id: addition.plan_id }),
    // Also after an error: somebody else may have settled it. Not awaited: the error is to be read first.
    onSettled: () => void client.invalidateQueries(),
  });
  return (
    <ConfirmDialog
      title={`Settle ${nameOf(addition)} of ${addition.company_name ?? "a customer"}`}
      size="lg"
      confirm={way === null ? "Choose what you found" : WAYS[way].label}
      isDisabled={way === null}
      onClose={onClose}
      onConfirm={async () => {
        if (way === null) return;
        const { lines } = await settle.mutateAsync(way);
        toast("success", WAYS[way].done, WAYS[way].next(lines));
      }}
    >
      <Stack gap={4}>
        <Text>
          {addition.agreement_name ?? `Agreement ${addition.agreement_id}`}: {addition.invoice_description ?? "no description"}
          {addition.line_ids.length > 0 && (
            <>
              , {money(addition.amount, addition.currency)} in <TextLink to={linesLink({ line_ids: addition.line_ids })}>{counted(addition.line_ids.length, "line")}</TextLink>
            </>
          )}
          . Once nothing else of this customer is to be settled, delivery that the proof stopped goes on.
        </Text>
        <Text whiteSpace="pre-wrap" borderLeftWidth={3} borderLeftColor="orange.solid" pl={3}>
          {addition.problem}
        </Text>
        {addition.state === "delivered" && !addition.is_invoiced && <Text>Put it back in ConnectWise, and there is nothing to settle: the next proof finds it as it was delivered.</Text>}
        <RadioGroup.Root value={way} onValueChange={(change) => setWay(change.value as Way)} aria-label="What you found in ConnectWise">
          <Stack gap={3}>
            {addition.ways.map((each) => (
              <RadioGroup.Item key={each} value={each} alignItems="start">
                <RadioGroup.ItemHiddenInput />
                <RadioGroup.ItemIndicator mt={1} />
                <RadioGroup.ItemText fontWeight="normal">
                  <Text fontWeight="medium">{WAYS[each].label}</Text>
                  <Text fontSize="sm" color="fg.muted">
                    {WAYS[each].help(addition)}
                  </Text>
                </RadioGroup.ItemText>
              </RadioGroup.Item>
            ))}
          </Stack>
        </RadioGroup.Root>
      </Stack>
    </ConfirmDialog>
  );
}
