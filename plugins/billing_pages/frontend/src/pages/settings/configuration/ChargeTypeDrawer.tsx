import { Alert, Button, Field, Heading, HStack, Input, NativeSelect, Stack, Switch, Text } from "@chakra-ui/react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { Drawer } from "../../../components/Drawer";
import { ErrorBox } from "../../../components/ErrorBox";
import { toast } from "../../../components/Toaster";
import { ApiError } from "../../../lib/api";
import { History } from "../../mapping/History";
import { type Chosen, TargetPicker } from "../../mapping/TargetPicker";
import { storeChargeType } from "./api";
import { DATE_RULES, EXAMPLE, wordsOf } from "../../../lib/dateRules";
import { SimulationDrawer } from "./SimulationDrawer";
import type { ChargeType, ChargeTypeChange, DateRule, Taxable } from "./types";

interface Props {
  chargeType: ChargeType;
  refusal?: string;
  onClose: () => void;
}

/** One charge type: its name, kind and rules; with its simulation and its history. */
export function ChargeTypeDrawer({ chargeType, refusal, onClose }: Props) {
  const queries = useQueryClient();
  const [given, setGiven] = useState<Omit<ChargeTypeChange, "version">>(asGiven(chargeType));
  const [product, setProduct] = useState<Chosen | null>(
    chargeType.default_product_id === null
      ? null
      : { id: chargeType.default_product_id, name: chargeType.default_product ?? `id ${chargeType.default_product_id}` },
  );
  const [isSimulating, setSimulating] = useState(false);
  const [other, setOther] = useState<ChargeType | null>(null);
  const stored = asGiven(chargeType);
  const isNew = chargeType.version === 0;
  const changed = (Object.keys(stored) as (keyof typeof stored)[]).filter((field) => (given[field] ?? null) !== (stored[field] ?? null));
  const isNamed = given.display_name.trim() !== "";
  const change: ChargeTypeChange = { ...given, display_name: given.display_name.trim(), version: chargeType.version };
  const set = (part: Partial<typeof given>) => setGiven({ ...given, ...part });

  const save = useMutation({
    mutationFn: (version: number) => storeChargeType(chargeType.charge_type, { ...change, version }),
    onSuccess: (now) => {
      queries.setQueryData<ChargeType[]>(["charge-types"], (all) =>
        all?.map((one) => (one.charge_type === now.charge_type ? now : one)),
      );
      void queries.invalidateQueries({ queryKey: ["charge-types"] });
      void queries.invalidateQueries({ queryKey: ["history", "billing.charge_type", now.charge_type] });
      toast("success", `${now.charge_type} saved`, "It counts for lines loaded from now on; for others: apply rules again.");
      onClose();
    },
    onError: (error) => {
      if (error instanceof ApiError && error.status === 409 && error.problem.current) {
        setSimulating(false);
        setOther(error.problem.current as ChargeType);
      }
    },
  });

  if (isSimulating)
    return (
      <SimulationDrawer
        title={`${chargeType.charge_type}: ${changed.map((field) => words(field, stored[field], given[field])).join("; ")}`}
        changes={{ charge_types: { [chargeType.charge_type]: change } }}
        refusal={refusal}
        onSave={() => save.mutateAsync(chargeType.version)}
        onDiscard={onClose}
        onClose={() => setSimulating(false)}
      />
    );
  return (
    <Drawer
      title={isNew ? `Define ${chargeType.charge_type}` : chargeType.charge_type}
      onClose={onClose}
      footer={
        <>
          <Button variant="outline" onClick={onClose}>
            {changed.length > 0 ? "Discard" : "Close"}
          </Button>
          <Button
            variant="outline"
            disabled={refusal !== undefined || !isNamed || (changed.length === 0 && !isNew)}
            title={refusal}
            onClick={() => setSimulating(true)}
          >
            What would it change?
          </Button>
          <Button
            disabled={refusal !== undefined || !isNamed || (changed.length === 0 && !isNew) || other !== null}
            title={refusal}
            loading={save.isPending}
            onClick={() => save.mutate(chargeType.version)}
          >
            Save
          </Button>
        </>
      }
    >
      <Stack gap={5}>
        {refusal && (
          <Alert.Root status="info">
            <Alert.Indicator />
            <Alert.Title>{refusal}</Alert.Title>
          </Alert.Root>
        )}
        {other && (
          <Alert.Root status="warning" role="alert">
            <Alert.Indicator />
            <Alert.Content>
              <Alert.Title>{other.changed_by ?? "Somebody else"} changed it meanwhile</Alert.Title>
              <Alert.Description>
                Stored now: {describe(other)}.
                <HStack mt={2}>
                  <Button
                    size="xs"
                    variant="outline"
                    onClick={() => {
                      void queries.invalidateQueries({ queryKey: ["charge-types"] });
                      setOther(null);
                    }}
                  >
                    Take what is stored
                  </Button>
                  <Button size="xs" loading={save.isPending} onClick={() => save.mutate(other.version)}>
                    Store mine instead
                  </Button>
                </HStack>
              </Alert.Description>
            </Alert.Content>
          </Alert.Root>
        )}
        {save.isError && !other && <ErrorBox error={save.error} what="Not saved" />}
        <Field.Root disabled={refusal !== undefined} required invalid={!isNamed}>
          <Field.Label>Name on the customer's invoice</Field.Label>
          <Input size="sm" maxLength={100} value={given.display_name} onChange={(event) => set({ display_name: event.target.value })} />
          <Field.ErrorText>It needs a name.</Field.ErrorText>
        </Field.Root>
        <Switch.Root
          checked={given.is_recurring}
          disabled={refusal !== undefined}
          onCheckedChange={({ checked }) => set({ is_recurring: checked })}
        >
          <Switch.HiddenInput />
          <Switch.Control />
          <Switch.Label>
            {given.is_recurring
              ? "Recurring: comes again each cycle; its lines may share a persistent Addition"
              : "One-time: each line gets a dated Addition of its own"}
          </Switch.Label>
        </Switch.Root>
        <RuleField label="Charge start" of="start" value={given.charge_start_rule} disabled={refusal !== undefined} onChange={(rule) => set({ charge_start_rule: rule })} />
        <RuleField label="Charge end" of="end" value={given.charge_end_rule} disabled={refusal !== undefined} onChange={(rule) => set({ charge_end_rule: rule })} />
        <Text fontSize="xs" color="fg.muted">
          {EXAMPLE}
        </Text>
        <Field.Root disabled={refusal !== undefined}>
          <Field.Label>Taxable</Field.Label>
          <NativeSelect.Root size="sm" maxW="80">
            <NativeSelect.Field value={given.taxable ?? ""} onChange={(event) => set({ taxable: (event.target.value || null) as Taxable })}>
              <option value="">as the setting “taxable” says</option>
              <option value="product">the product in ConnectWise decides</option>
              <option value="on">on</option>
              <option value="off">off</option>
            </NativeSelect.Field>
            <NativeSelect.Indicator />
          </NativeSelect.Root>
        </Field.Root>
        <Stack gap={1}>
          <Text fontWeight="medium">Default product</Text>
          <TargetPicker
            kind="products"
            name="Default product"
            value={product}
            isDisabled={refusal !== undefined}
            placeholder="None: lines without an offer are held"
            onChange={(chosen) => {
              setProduct(chosen);
              set({ default_product_id: chosen?.id ?? null });
            }}
          />
          <Text fontSize="xs" color="fg.muted">
            For lines without an offer, as custom charges often are.
          </Text>
        </Stack>
        {!isNew && (
          <Stack gap={3} as="section">
            <Heading as="h3" size="sm">
              History
            </Heading>
            <History table="billing.charge_type" rowKey={chargeType.charge_type} />
          </Stack>
        )}
      </Stack>
    </Drawer>
  );
}

function asGiven(one: ChargeType): Omit<ChargeTypeChange, "version"> {
  return {
    display_name: one.display_name,
    is_recurring: one.is_recurring,
    charge_start_rule: one.charge_start_rule,
    charge_end_rule: one.charge_end_rule,
    taxable: one.taxable,
    default_product_id: one.default_product_id,
  };
}

/** "charge start rule as invoiced → invoice date" */
function words(field: string, before: unknown, after: unknown): string {
  const [was, becomes] = [before, after].map((value) => String(value ?? "none").replaceAll("_", " "));
  return `${field.replaceAll("_", " ")} ${was} → ${becomes}`;
}

function describe(one: ChargeType): string {
  return [
    `“${one.display_name}”`,
    one.is_recurring ? "recurring" : "one-time",
    `start: ${wordsOf(one.charge_start_rule)}`,
    `end: ${wordsOf(one.charge_end_rule)}`,
    `taxable: ${one.taxable ?? "as the setting"}`,
    `default product: ${one.default_product ?? "none"}`,
  ].join(", ");
}

function RuleField(props: {
  label: string;
  of: "start" | "end";
  value: DateRule;
  disabled: boolean;
  onChange: (rule: DateRule) => void;
}) {
  const chosen = DATE_RULES.find((one) => one.rule === props.value);
  return (
    <Field.Root disabled={props.disabled}>
      <Field.Label>{props.label}</Field.Label>
      <NativeSelect.Root size="sm">
        <NativeSelect.Field value={props.value} onChange={(event) => props.onChange(event.target.value as DateRule)}>
          {DATE_RULES.map((one) => (
            <option key={one.rule} value={one.rule}>
              {one.words} ({one[props.of]})
            </option>
          ))}
        </NativeSelect.Field>
        <NativeSelect.Indicator />
      </NativeSelect.Root>
      <Field.HelperText>In the example: {chosen?.[props.of]}</Field.HelperText>
    </Field.Root>
  );
}
