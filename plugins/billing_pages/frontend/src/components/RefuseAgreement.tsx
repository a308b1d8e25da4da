// Whether plans may create an agreement for a company: a person refuses it, or takes a refusal back.
import { Text } from "@chakra-ui/react";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { send } from "../lib/api";
import { ConfirmDialog } from "./Dialog";
import { GuardedButton } from "./GuardedButton";
import { ReasonDialog } from "./ReasonDialog";
import { toast } from "./Toaster";

/** refusal: what keeps plans from it now; null: nothing, so it can be refused. */
export function RefuseAgreement({ companyId, companyName, refusal }: { companyId: number; companyName: string; refusal: string | null }) {
  // As it was when the dialog was opened: it must not turn into its opposite while it is read.
  const [asked, setAsked] = useState<{ refusal: string | null } | null>(null);
  const client = useQueryClient();
  const ask = async (path: string, more: object, done: string, next: string) => {
    try {
      await send("POST", path, { company_id: companyId, ...more });
    } finally {
      void client.invalidateQueries();
    }
    toast("success", done, next);
  };
  return (
    <>
      <GuardedButton permission="approve" size="xs" variant="outline" onClick={() => setAsked({ refusal })}>
        {refusal === null ? "Refuse for good …" : "Allow it again …"}
      </GuardedButton>
      {asked?.refusal === null && (
        <ReasonDialog
          title={`No agreement for ${companyName}?`}
          confirm="Refuse it"
          isDanger
          help="It stands at the held lines and in the audit trail."
          onClose={() => setAsked(null)}
          onConfirm={(reason) => ask("agreements/refuse", { reason }, "No agreement is created", "It counts at once, for approved plans, too.")}
        >
          No plan creates an agreement for this company. Its lines are held until you choose or make one, or exclude them.
        </ReasonDialog>
      )}
      {asked !== null && asked.refusal !== null && (
        <ConfirmDialog
          title={`Let an agreement be created for ${companyName}?`}
          confirm="Allow it"
          onClose={() => setAsked(null)}
          onConfirm={() => ask("agreements/allow", {}, "An agreement may be created", "The next run, or “Plan again”, plans it.")}
        >
          <Text whiteSpace="pre-wrap">Now: {asked.refusal}</Text>
        </ConfirmDialog>
      )}
    </>
  );
}
