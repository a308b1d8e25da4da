import { Field, NativeSelect, Stack, Text } from "@chakra-ui/react";
import { useState } from "react";

import { ConfirmDialog } from "../../components/Dialog";
import { type Chosen, TargetPicker } from "./TargetPicker";
import type { MappingDecision, MappingRow } from "./types";

interface Props {
  row: MappingRow;
  refusal?: string;
  onDecide: (decision: MappingDecision) => Promise<unknown>;
  onClose: () => void;
}

/** Another product for one billing frequency of an offer. */
export function FrequenciesDialog({ row, refusal, onDecide, onClose }: Props) {
  const [frequency, setFrequency] = useState(row.frequencies[0] ?? "");
  const [product, setProduct] = useState<Chosen | null>(null);
  return (
    <ConfirmDialog
      title={`${row.source_name ?? row.source_id}: a product of its own for one billing frequency`}
      confirm="Approve"
      isDisabled={product === null || frequency === "" || refusal !== undefined}
      onConfirm={() =>
        onDecide({
          source_id: row.source_id,
          billing_frequency: frequency,
          version: 0,
          state: "approved",
          target_id: product?.id ?? null,
          recurring_mode: null,
          note: null,
        })
      }
      onClose={onClose}
    >
      <Stack gap={4}>
        <Text>Lines of this frequency are then decided by the new row beneath the offer, all others by the offer's own row.</Text>
        <Field.Root>
          <Field.Label>Billing frequency</Field.Label>
          <NativeSelect.Root size="sm">
            <NativeSelect.Field value={frequency} onChange={(event) => setFrequency(event.target.value)}>
              {row.frequencies.map((one) => (
                <option key={one} value={one}>
                  {one}
                </option>
              ))}
            </NativeSelect.Field>
            <NativeSelect.Indicator />
          </NativeSelect.Root>
          <Field.HelperText>Frequencies that invoices or subscriptions have.</Field.HelperText>
        </Field.Root>
        <Stack gap={1}>
          <Text fontWeight="medium">Product</Text>
          <TargetPicker kind="products" name="Product" value={product} onChange={setProduct} isDisabled={refusal !== undefined} />
        </Stack>
      </Stack>
    </ConfirmDialog>
  );
}
