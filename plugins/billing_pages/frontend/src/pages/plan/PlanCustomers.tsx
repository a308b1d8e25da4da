import { Box, Button, Checkbox, Flex, Input, Table, Text } from "@chakra-ui/react";
import { useState } from "react";
import { Empty } from "../../components/Empty";
import { TableFrame } from "../../components/TableFrame";
import { toastError } from "../../components/Toaster";
import { count, counted, money } from "../../lib/format";
import type { Model } from "../../models";
import { itemsOf, type LeftOut, leftOutOf } from "./leaveOut";

type Customer = Model<"PlanCustomer">;

const AT_ONCE = 200;

/** The plan per customer, with money. A customer can be left out as a whole; its name leads to its items. */
export function PlanCustomers({ planId, customers, q, onSearch, onOpen, leftOut, onLeave, canChoose }: {
  planId: number;
  customers: Customer[];
  q: string;
  onSearch: (q: string) => void;
  onOpen: (companyId: number) => void;
  leftOut: LeftOut;
  onLeave: (items: Model<"PlanItem">[], isOut: boolean) => void;
  canChoose: boolean;
}) {
  const [shown, setShown] = useState(AT_ONCE);
  const [busy, setBusy] = useState<number | null>(null);
  const changes = (customer: Customer) => customer.creates + customer.updates + customer.agreements > 0;
  const found = customers
    .filter((customer) => customer.company_name.toLowerCase().includes(q.toLowerCase()))
    .sort((a, b) => Number(changes(b)) - Number(changes(a)));

  const leave = async (companyId: number, isOut: boolean) => {
    setBusy(companyId);
    try {
      onLeave(await itemsOf(planId, companyId), isOut);
    } catch (error) {
      toastError(error, "The customer's items cannot be read");
    } finally {
      setBusy(null);
    }
  };

  return (
    <Box>
      <Flex gap="2" mb="2" align="center">
        <Input size="sm" width="18rem" type="search" aria-label="Search customers" placeholder="Customer …" value={q} onChange={(event) => onSearch(event.target.value)} />
        <Text ms="auto" fontSize="xs" color="fg.muted" aria-live="polite">
          {counted(found.length, "row")}
        </Text>
      </Flex>
      {found.length === 0 ? (
        <Empty title="No customer" detail={q ? "No name fits." : "The plan changes nothing for any customer."} />
      ) : (
        <TableFrame name="Customers of the plan">
          <Table.Root size="sm">
            <Table.Header>
              <Table.Row>
                {canChoose && <Table.ColumnHeader scope="col">Deliver</Table.ColumnHeader>}
                <Table.ColumnHeader scope="col">Customer</Table.ColumnHeader>
                <Table.ColumnHeader scope="col" textAlign="end">
                  Create
                </Table.ColumnHeader>
                <Table.ColumnHeader scope="col" textAlign="end">
                  Update
                </Table.ColumnHeader>
                <Table.ColumnHeader scope="col" textAlign="end">
                  Agreements
                </Table.ColumnHeader>
                <Table.ColumnHeader scope="col" textAlign="end">
                  Newly billed
                </Table.ColumnHeader>
                <Table.ColumnHeader scope="col" textAlign="end">
                  Held, not in this plan
                </Table.ColumnHeader>
              </Table.Row>
            </Table.Header>
            <Table.Body>
              {found.slice(0, shown).map((customer) => {
                const out = leftOutOf(leftOut, customer.company_id);
                // Of all its currencies: items are left out by customer.
                const all = customers.filter((each) => each.company_id === customer.company_id).reduce((sum, each) => sum + each.creates + each.updates + each.agreements, 0);
                const isOut = canChoose && out > 0 && out >= all;
                return (
                  <Table.Row key={`${customer.company_id}-${customer.currency}`} opacity={isOut ? 0.7 : 1}>
                    {canChoose && !changes(customer) && <Table.Cell />}
                    {canChoose && changes(customer) && (
                      <Table.Cell>
                        <Checkbox.Root size="sm" checked={isOut ? false : out > 0 ? "indeterminate" : true} disabled={busy === customer.company_id} onCheckedChange={(change) => leave(customer.company_id, change.checked !== true)}>
                          <Checkbox.HiddenInput aria-label={`Deliver to ${customer.company_name}`} />
                          <Checkbox.Control />
                        </Checkbox.Root>
                      </Table.Cell>
                    )}
                    <Table.Cell as="th" scope="row" textAlign="start" fontWeight="medium">
                      <Button variant="plain" px="0" h="auto" minH="0" color="brand.fg" textDecoration="underline" textDecorationColor="border.emphasized" whiteSpace="normal" textAlign="start" onClick={() => onOpen(customer.company_id)}>
                        {customer.company_name}
                      </Button>
                    </Table.Cell>
                    {[customer.creates, customer.updates, customer.agreements].map((number, index) => (
                      <Table.Cell key={["creates", "updates", "agreements"][index]} textAlign="end" color={number === 0 ? "fg.muted" : undefined}>
                        {number === 0 ? "–" : count(number)}
                      </Table.Cell>
                    ))}
                    <Table.Cell textAlign="end" fontVariantNumeric="tabular-nums" whiteSpace="nowrap" fontWeight="medium">
                      {changes(customer) ? money(customer.amount, customer.currency) : "–"}
                    </Table.Cell>
                    <Table.Cell textAlign="end" fontVariantNumeric="tabular-nums" whiteSpace="nowrap" color={customer.held_lines === 0 ? "fg.muted" : "orange.fg"}>
                      {customer.held_lines === 0 ? "–" : `${money(customer.held_amount, customer.currency)} (${counted(customer.held_lines, "line")})`}
                    </Table.Cell>
                  </Table.Row>
                );
              })}
            </Table.Body>
          </Table.Root>
        </TableFrame>
      )}
      {found.length > shown && (
        <Button size="xs" variant="ghost" mt="2" onClick={() => setShown(found.length)}>
          Show all {count(found.length)}
        </Button>
      )}
    </Box>
  );
}
