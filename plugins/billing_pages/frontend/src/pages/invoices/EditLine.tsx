// All values of a line as a form: for tablets, and for whoever likes forms better than cells.
import { Button, Field, HStack, Input, Stack, Text, Textarea } from "@chakra-ui/react";
import { useState } from "react";
import { Combobox } from "../../components/Combobox";
import { ErrorBox } from "../../components/ErrorBox";
import { type EditableField, FIELD_OF_COLUMN, FIELD_TITLES, type Line, type LineChange, plainValue, searchAgreements, searchProducts, shownValue, sourceOf, valueToSend } from "./line";

const COLUMN_OF_FIELD = Object.fromEntries(Object.entries(FIELD_OF_COLUMN).map(([column, field]) => [field, column])) as Record<EditableField, string>;

export function EditLine({ line, onDone, onCancel }: { line: Line; onDone: (values: Omit<LineChange, "version">) => Promise<unknown>; onCancel: () => void }) {
  const [given, setGiven] = useState<Partial<Record<EditableField, string>>>({});
  const [error, setError] = useState<unknown>(null);
  const [isBusy, setBusy] = useState(false);
  const give = (field: EditableField, text: string) => setGiven((before) => ({ ...before, [field]: text }));
  const value = (field: EditableField) => given[field] ?? plainValue(line, field);
  const store = async () => {
    setBusy(true);
    setError(null);
    try {
      const values: Record<string, unknown> = {};
      for (const [field, text] of Object.entries(given) as [EditableField, string][]) {
        if (text !== plainValue(line, field)) values[field] = await valueToSend({ row: line, field: COLUMN_OF_FIELD[field], text });
      }
      if (Object.keys(values).length === 0) onCancel();
      else await onDone(values);
    } catch (problem) {
      setError(problem);
    } finally {
      setBusy(false);
    }
  };
  const back = (field: EditableField) =>
    sourceOf(line, field) === "User Updated" && given[field] !== "" ? (
      <Button size="2xs" variant="ghost" onClick={() => give(field, "")}>
        Reset to system value
      </Button>
    ) : null;
  return (
    <Stack gap={3}>
      {error !== null && <ErrorBox error={error} what="The change was not stored" />}
      {(Object.keys(FIELD_TITLES) as EditableField[]).map((field) => (
        <Field.Root key={field}>
          <HStack justify="space-between" width="100%">
            <Field.Label>{FIELD_TITLES[field]}</Field.Label>
            {back(field)}
          </HStack>
          {field === "agreement_id" || field === "product_id" ? (
            <Combobox
              key={given[field] === "" ? "reset" : "picked"}
              name={FIELD_TITLES[field]}
              scope={String(line.line_id)}
              text={given[field] === "" ? "" : shownValue(line, field)}
              search={(text) => (field === "agreement_id" ? searchAgreements : searchProducts)(line, text)}
              onPick={(option) => give(field, option?.value ?? "")}
            />
          ) : field === "invoice_description" ? (
            <Textarea rows={3} maxLength={5900} value={value(field)} onChange={(event) => give(field, event.target.value)} />
          ) : (
            <Input
              size="sm"
              type={field.endsWith("_date") ? "date" : "text"}
              inputMode={field.endsWith("_date") ? undefined : "decimal"}
              value={value(field)}
              onChange={(event) => give(field, event.target.value)}
            />
          )}
          {given[field] === "" && (
            <Text fontSize="xs" color="fg.muted">
              Back to the system value
            </Text>
          )}
        </Field.Root>
      ))}
      <HStack justify="flex-end">
        <Button variant="outline" onClick={onCancel}>
          Cancel
        </Button>
        <Button loading={isBusy} onClick={store}>
          Store
        </Button>
      </HStack>
    </Stack>
  );
}
