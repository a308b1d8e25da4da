import { Button, Card, Heading, HStack, Table, Text } from "@chakra-ui/react";
import { Empty } from "../../components/Empty";
import { ErrorBox } from "../../components/ErrorBox";
import { Loading } from "../../components/Loading";
import { TableFrame } from "../../components/TableFrame";
import { TextLink } from "../../components/TextLink";
import { count, money } from "../../lib/format";
import { linesLink } from "../../lib/links";
import type { Model, Outcome } from "../../models";
import { CUSTOMERS_PER_PAGE, useCustomerMoney } from "./queries";

type Column = "total" | "delivered" | "awaiting_approval" | "held" | "in_doubt" | "excluded";

const COLUMNS: readonly { field: Column; label: string; outcome: Outcome | null }[] = [
  { field: "total", label: "Invoiced", outcome: null },
  { field: "delivered", label: "Delivered", outcome: "delivered" },
  { field: "awaiting_approval", label: "Awaiting approval", outcome: "awaiting approval" },
  { field: "held", label: "Held", outcome: "held" },
  { field: "in_doubt", label: "In doubt", outcome: "in doubt" },
  { field: "excluded", label: "Excluded", outcome: "excluded" },
];

/** Money by customer; each figure leads to its lines. sort and page stand in the address. */
export function Customers({ period, sort, page, onChange }: {
  period: string;
  sort: string;
  page: number;
  onChange: (change: { sort?: string; page?: string }) => void;
}) {
  const customers = useCustomerMoney(period, sort, (page - 1) * CUSTOMERS_PER_PAGE);
  const pages = Math.max(1, Math.ceil((customers.data?.total ?? 0) / CUSTOMERS_PER_PAGE));
  const header = (field: string, label: string, isNumber: boolean) => {
    const isUp = sort === field;
    const isDown = sort === `-${field}`;
    return (
      <Table.ColumnHeader key={field} scope="col" textAlign={isNumber ? "end" : "start"} aria-sort={isUp ? "ascending" : isDown ? "descending" : "none"}>
        <Button variant="plain" size="xs" px="0" h="auto" onClick={() => onChange({ sort: isDown || (!isNumber && !isUp) ? field : `-${field}`, page: "1" })}>
          {label}
          <Text as="span" aria-hidden color={isUp || isDown ? "fg" : "border.emphasized"}>
            {isUp ? "▲" : isDown ? "▼" : "↕"}
          </Text>
        </Button>
      </Table.ColumnHeader>
    );
  };
  return (
    <Card.Root as="section" size="sm" aria-labelledby="customers-heading">
      <Card.Header pb="2">
        <Heading size="md" id="customers-heading">
          By customer
        </Heading>
      </Card.Header>
      <Card.Body>
        {customers.isPending ? (
          <Loading what="customers" />
        ) : customers.error ? (
          <ErrorBox error={customers.error} onRetry={() => customers.refetch()} />
        ) : customers.data.customers.length === 0 ? (
          <Empty title="No customer has lines in this month" />
        ) : (
          <>
            <TableFrame name="Money by customer" borderWidth="0">
              <Table.Root size="sm" interactive opacity={customers.isPlaceholderData ? 0.6 : 1}>
                <Table.Header>
                  <Table.Row>
                    {header("organization_name", "Customer", false)}
                    {COLUMNS.map((column) => header(column.field, column.label, true))}
                    {header("currency", "Currency", false)}
                  </Table.Row>
                </Table.Header>
                <Table.Body>
                  {customers.data.customers.map((customer) => (
                    <Table.Row key={`${customer.organization_id}-${customer.currency}`}>
                      <Table.Cell as="th" scope="row" textAlign="start" fontWeight="medium">
                        {customer.organization_name}
                      </Table.Cell>
                      {COLUMNS.map((column) => (
                        <Figure key={column.field} customer={customer} column={column} period={period} />
                      ))}
                      <Table.Cell>{customer.currency}</Table.Cell>
                    </Table.Row>
                  ))}
                </Table.Body>
              </Table.Root>
            </TableFrame>
            {pages > 1 && (
              <HStack mt="3" justify="space-between">
                <Text fontSize="xs" color="fg.muted" aria-live="polite">
                  Page {count(page)} of {count(pages)}, {count(customers.data.total)} customers
                </Text>
                <HStack>
                  <Button size="xs" variant="outline" disabled={page <= 1} onClick={() => onChange({ page: String(page - 1) })}>
                    Previous
                  </Button>
                  <Button size="xs" variant="outline" disabled={page >= pages} onClick={() => onChange({ page: String(page + 1) })}>
                    Next
                  </Button>
                </HStack>
              </HStack>
            )}
          </>
        )}
      </Card.Body>
    </Card.Root>
  );
}

const isZero = (amount: string) => /^-?0*(\.0*)?$/.test(amount);

function Figure({ customer, column, period }: { customer: Model<"CustomerMoney">; column: (typeof COLUMNS)[number]; period: string }) {
  const amount = customer[column.field];
  const filter = { periods: [period], organization_ids: [customer.organization_id], currencies: [customer.currency] };
  return (
    <Table.Cell textAlign="end" fontVariantNumeric="tabular-nums" whiteSpace="nowrap">
      {isZero(amount) && column.outcome !== null ? (
        <Text as="span" color="fg.muted">
          –
        </Text>
      ) : (
        <TextLink
         
          to={linesLink(column.outcome === null ? filter : { ...filter, outcomes: [column.outcome] })}
          aria-label={`${customer.organization_name}, ${column.label}: ${money(amount, customer.currency)}, open its lines`}
        >
          {money(amount, null)}
        </TextLink>
      )}
    </Table.Cell>
  );
}
