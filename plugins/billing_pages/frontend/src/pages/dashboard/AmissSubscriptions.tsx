import { Badge, Button, Card, Heading, HStack, Table, Text } from "@chakra-ui/react";
import { useState } from "react";
import { ErrorBox } from "../../components/ErrorBox";
import { Help } from "../../components/Help";
import { TableFrame } from "../../components/TableFrame";
import { TextLink } from "../../components/TextLink";
import { count, date, price, quantity } from "../../lib/format";
import { linesLink } from "../../lib/links";
import { useSubscriptions } from "./queries";

const FEW = 8;
const MANY = 500;

/** Subscriptions with something amiss: what the customer runs does not fit to what is billed. */
export function AmissSubscriptions() {
  const [limit, setLimit] = useState(FEW);
  const found = useSubscriptions(true, "", limit);
  if (found.isPending) return null;
  if (found.error) return <ErrorBox error={found.error} what="Subscriptions cannot be read" onRetry={() => found.refetch()} />;
  if (found.data.total === 0) return null;
  return (
    <Card.Root as="section" size="sm" aria-labelledby="amiss-heading">
      <Card.Header pb="2">
        <HStack>
          <Heading size="md" id="amiss-heading">
            Subscriptions amiss
          </Heading>
          <Badge colorPalette="orange">{count(found.data.total)}</Badge>
          <Help label="What is amiss">
            What the customer runs does not fit to what ConnectWise bills: no longer invoiced but still billed, an Addition that was changed or deleted by hand, or one that nobody pays for yet.
          </Help>
        </HStack>
      </Card.Header>
      <Card.Body gap="2">
        <TableFrame name="Table of subscriptions" borderWidth="0">
          <Table.Root size="sm">
            <Table.Header>
              <Table.Row>
                <Table.ColumnHeader scope="col">Customer</Table.ColumnHeader>
                <Table.ColumnHeader scope="col">Subscription</Table.ColumnHeader>
                <Table.ColumnHeader scope="col">What is amiss</Table.ColumnHeader>
                <Table.ColumnHeader scope="col" textAlign="end">
                  In AppXite
                </Table.ColumnHeader>
                <Table.ColumnHeader scope="col">Paid until</Table.ColumnHeader>
              </Table.Row>
            </Table.Header>
            <Table.Body>
              {found.data.subscriptions.map((each) => (
                <Table.Row key={`${each.subscription_id}-${each.agreement_id}`}>
                  <Table.Cell>{each.company_name ?? each.organization_name ?? "not known"}</Table.Cell>
                  <Table.Cell>
                    <TextLink to={linesLink({ subscription_id: each.subscription_id })}>
                      {each.subscription_name ?? each.subscription_id}
                    </TextLink>
                    <Text fontSize="xs" color="fg.muted">
                      {each.agreement_name}
                    </Text>
                  </Table.Cell>
                  <Table.Cell>{each.amiss}</Table.Cell>
                  <Table.Cell textAlign="end" fontVariantNumeric="tabular-nums" whiteSpace="nowrap">
                    {each.quantity !== null && each.unit_price !== null ? `${quantity(each.quantity)} × ${price(each.unit_price)} ${each.currency ?? ""}` : "–"}
                  </Table.Cell>
                  <Table.Cell whiteSpace="nowrap">{date(each.paid_until) || "–"}</Table.Cell>
                </Table.Row>
              ))}
            </Table.Body>
          </Table.Root>
        </TableFrame>
        {found.data.total > FEW && (
          <Button size="xs" variant="ghost" alignSelf="start" onClick={() => setLimit(limit === FEW ? MANY : FEW)}>
            {limit === FEW ? `Show all ${count(found.data.total)}` : "Show fewer"}
          </Button>
        )}
      </Card.Body>
    </Card.Root>
  );
}
