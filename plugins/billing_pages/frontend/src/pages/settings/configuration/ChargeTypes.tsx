import { Badge, Button, Stack, Table, Text } from "@chakra-ui/react";
import { useQuery } from "@tanstack/react-query";

import { ErrorBox } from "../../../components/ErrorBox";
import { Loading } from "../../../components/Loading";
import { TextLink } from "../../../components/TextLink";
import { useAddress } from "../../../lib/address";
import { counted, DateTime } from "../../../lib/format";
import { linesLink } from "../../../lib/links";
import type { Outcome } from "../../../models";
import { fetchChargeTypes } from "./api";
import { ChargeTypeDrawer } from "./ChargeTypeDrawer";
import { shortOf, wordsOf } from "../../../lib/dateRules";

/** Rules are applied again to lines that are not delivered. */
const OPEN: Outcome[] = ["held", "awaiting approval"];

/** The charge types: how customers see them, and the rules for their dates. */
export function ChargeTypes({ refusal }: { refusal?: string }) {
  const found = useQuery({ queryKey: ["charge-types"], queryFn: ({ signal }) => fetchChargeTypes(signal) });
  const [{ charge_type: open }, change] = useAddress({ charge_type: "" });
  const setOpen = (chargeType: string) => change({ charge_type: chargeType });
  if (found.isPending) return <Loading what="charge types" />;
  if (found.isError) return <ErrorBox error={found.error} what="The charge types could not be read" onRetry={() => void found.refetch()} />;
  const opened = found.data.find((one) => one.charge_type === open);
  return (
    <Stack gap={3}>
      <Text fontSize="sm" color="fg.muted">
        Rules are stamped on lines when they are loaded. A change counts for lines that are loaded from then on; others get it by
        “apply rules again”. Delivered lines are never changed.
      </Text>
      <Table.ScrollArea borderWidth="1px" borderRadius="md" whiteSpace="normal">
        <Table.Root size="sm" aria-label="Charge types">
          <Table.Header>
            <Table.Row>
              <Table.ColumnHeader>Charge type</Table.ColumnHeader>
              <Table.ColumnHeader>Customers see</Table.ColumnHeader>
              <Table.ColumnHeader>Lines</Table.ColumnHeader>
              <Table.ColumnHeader>Charge start</Table.ColumnHeader>
              <Table.ColumnHeader>Charge end</Table.ColumnHeader>
              <Table.ColumnHeader>Taxable</Table.ColumnHeader>
              <Table.ColumnHeader>Default product</Table.ColumnHeader>
              <Table.ColumnHeader>Older rules</Table.ColumnHeader>
              <Table.ColumnHeader>
                <span className="sr-only">Actions</span>
              </Table.ColumnHeader>
            </Table.Row>
          </Table.Header>
          <Table.Body>
            {found.data.map((one) => (
              <Table.Row key={one.charge_type} verticalAlign="top">
                <Table.ColumnHeader scope="row">
                  {one.charge_type}
                  {one.version === 0 && (
                    <Badge colorPalette="orange" ms={2}>
                      not known
                    </Badge>
                  )}
                </Table.ColumnHeader>
                <Table.Cell>
                  {one.display_name}
                  {one.changed_by && (
                    <Text fontSize="xs" color="fg.muted">
                      {one.changed_by}, <DateTime at={one.changed_at} />
                    </Text>
                  )}
                </Table.Cell>
                {one.version === 0 ? (
                  <Table.Cell colSpan={5}>Its lines are held: say what it means.</Table.Cell>
                ) : (
                  <>
                    <Table.Cell>{one.is_recurring ? "recurring" : "one-time"}</Table.Cell>
                    <Table.Cell title={wordsOf(one.charge_start_rule)}>{shortOf(one.charge_start_rule)}</Table.Cell>
                    <Table.Cell title={wordsOf(one.charge_end_rule)}>{shortOf(one.charge_end_rule)}</Table.Cell>
                    <Table.Cell>{one.taxable ?? "as set"}</Table.Cell>
                    <Table.Cell>{one.default_product ?? (one.default_product_id ? `id ${one.default_product_id}` : "–")}</Table.Cell>
                  </>
                )}
                <Table.Cell>
                  {one.version === 0 ? (
                    counted(one.lines_with_older_rules, "line")
                  ) : one.lines_with_older_rules > 0 ? (
                    <TextLink to={linesLink({ charge_types: [one.charge_type], outcomes: OPEN })}>
                      {counted(one.lines_with_older_rules, "line")}: apply rules again
                    </TextLink>
                  ) : (
                    "–"
                  )}
                </Table.Cell>
                <Table.Cell textAlign="end">
                  <Button size="xs" variant="outline" onClick={() => setOpen(one.charge_type)}>
                    {refusal ? "Look" : one.version === 0 ? "Define" : "Edit"}
                    <span className="sr-only"> {one.charge_type}</span>
                  </Button>
                </Table.Cell>
              </Table.Row>
            ))}
          </Table.Body>
        </Table.Root>
      </Table.ScrollArea>
      {opened && (
        <ChargeTypeDrawer
          key={`${opened.charge_type} ${opened.version}`}
          chargeType={opened}
          refusal={refusal}
          onClose={() => setOpen("")}
        />
      )}
    </Stack>
  );
}
