import { Field, Stack, Text, Textarea } from "@chakra-ui/react";
import { type ReactNode, useState } from "react";
import { ConfirmDialog } from "../../components/Dialog";

/** Asks for the reason of an exclusion. */
export function ReasonDialog(props: { title: string; children: ReactNode; onClose: () => void; onConfirm: (reason: string) => Promise<unknown> | unknown }) {
  const [reason, setReason] = useState("");
  return (
    <ConfirmDialog title={props.title} confirm="Exclude" isDisabled={reason.trim() === ""} onClose={props.onClose} onConfirm={() => props.onConfirm(reason.trim())}>
      <Stack gap={3}>
        <Text>{props.children}</Text>
        <Field.Root required>
          <Field.Label>
            Reason <Field.RequiredIndicator />
          </Field.Label>
          <Textarea value={reason} maxLength={1000} rows={3} onChange={(event) => setReason(event.target.value)} />
          <Field.HelperText>It stands on the line and in the audit trail.</Field.HelperText>
        </Field.Root>
      </Stack>
    </ConfirmDialog>
  );
}
