import { Field, Stack, Text, Textarea } from "@chakra-ui/react";
import { type ReactNode, useState } from "react";
import { ConfirmDialog } from "./Dialog";

/** Asks for a reason before something is done. help: where the reason will stand. */
export function ReasonDialog(props: {
  title: string;
  confirm: string;
  isDanger?: boolean;
  help?: string;
  children: ReactNode;
  onClose: () => void;
  onConfirm: (reason: string) => Promise<unknown> | unknown;
}) {
  const [reason, setReason] = useState("");
  return (
    <ConfirmDialog
      title={props.title}
      confirm={props.confirm}
      isDanger={props.isDanger}
      isDisabled={reason.trim() === ""}
      onClose={props.onClose}
      onConfirm={() => props.onConfirm(reason.trim())}
    >
      <Stack gap={3}>
        <Text>{props.children}</Text>
        <Field.Root required>
          <Field.Label>
            Reason <Field.RequiredIndicator />
          </Field.Label>
          <Textarea value={reason} maxLength={1000} rows={3} onChange={(event) => setReason(event.target.value)} />
          {props.help && <Field.HelperText>{props.help}</Field.HelperText>}
        </Field.Root>
      </Stack>
    </ConfirmDialog>
  );
}
