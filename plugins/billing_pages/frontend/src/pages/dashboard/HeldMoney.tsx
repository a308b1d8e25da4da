import { Badge, Box, Button, Card, Flex, Heading, HStack, Stack, Table, Text } from "@chakra-ui/react";
import { Link } from "react-router";
import { Empty } from "../../components/Empty";
import { ErrorBox } from "../../components/ErrorBox";
import { Help } from "../../components/Help";
import { Loading } from "../../components/Loading";
import { TableFrame } from "../../components/TableFrame";
import { TextLink } from "../../components/TextLink";
import { counted, DateTime, money } from "../../lib/format";
import { linesLink } from "../../lib/links";
import type { Model } from "../../models";
import { useHeld } from "./queries";

type Money = Model<"Money">;

const AGES = [
  { bucket: "0-7", label: "up to 7 days", color: "amber.muted" },
  { bucket: "8-30", label: "8 to 30 days", color: "orange.emphasized" },
  { bucket: "31-90", label: "31 to 90 days", color: "orange.solid" },
  { bucket: "90+", label: "over 90 days", color: "red.solid" },
] as const;

/** Held money at risk: how old it is, and what causes it, each with its cure. */
export function HeldMoney({ period, scope, onScope }: { period: string | null; scope: "period" | "all"; onScope: (scope: "period" | "all") => void }) {
  const asked = scope === "period" ? period : null;
  const held = useHeld(asked);
  const periods = asked === null ? {} : { periods: [asked] };
  return (
    <Card.Root as="section" size="sm" aria-labelledby="held-heading" minW="0">
      <Card.Header pb="2">
        <HStack flexWrap="wrap">
          <Heading size="md" id="held-heading">
            Held money at risk
          </Heading>
          <Help label="What held money is">
            Lines that cannot be delivered until somebody acts. The customer does not pay for them until then. A line with several reasons counts under each of its causes, so causes may add up to more than is held.
          </Help>
          <Button size="xs" variant="outline" ms="auto" onClick={() => onScope(scope === "period" ? "all" : "period")}>
            {scope === "period" ? "Show all months" : "Show this month only"}
          </Button>
        </HStack>
      </Card.Header>
      <Card.Body gap="3">
        {held.isPending ? (
          <Loading what="held money" />
        ) : held.error ? (
          <ErrorBox error={held.error} onRetry={() => held.refetch()} />
        ) : held.data.total.length === 0 ? (
          <Empty title="Nothing is held" detail={scope === "period" ? "Every line of this month is delivered, ready or excluded." : "Every line is delivered, ready or excluded."} />
        ) : (
          <>
            <HStack gap="4" flexWrap="wrap">
              {held.data.total.map((sum) => (
                <Box key={sum.currency}>
                  <Text fontSize="xl" fontWeight="semibold" fontVariantNumeric="tabular-nums">
                    {money(sum.amount, sum.currency)}
                  </Text>
                  <Text fontSize="xs" color="fg.muted">
                    <TextLink to={linesLink({ ...periods, outcomes: ["held"], currencies: [sum.currency] })}>
                      {counted(sum.lines, "line")}
                    </TextLink>{" "}
                    held {scope === "all" && "in all months"}
                  </Text>
                </Box>
              ))}
            </HStack>
            <Ages ages={held.data.ages} />
            <Causes causes={[...held.data.causes].sort((a, b) => weight(b) - weight(a))} periods={periods} />
          </>
        )}
      </Card.Body>
    </Card.Root>
  );
}

/** Only for the order, most money first. */
const weight = (cause: Model<"HeldCause">) => Math.max(...cause.money.map((sum) => Number(sum.amount)));

function Ages({ ages }: { ages: Model<"HeldAge">[] }) {
  const lines = (money: Money[]) => money.reduce((sum, each) => sum + each.lines, 0);
  const total = ages.reduce((sum, age) => sum + lines(age.money), 0);
  if (total === 0) return null;
  return (
    <Stack gap="1">
      <Text fontSize="xs" color="fg.muted" id="ages">
        By how long it is held
      </Text>
      <Flex h="3" borderRadius="full" overflow="hidden" aria-hidden>
        {AGES.map(({ bucket, color }) => {
          const share = lines(ages.find((age) => age.bucket === bucket)?.money ?? []) / total;
          return share === 0 ? null : <Box key={bucket} bg={color} style={{ width: `${100 * share}%` }} minW="3px" />;
        })}
      </Flex>
      <Flex as="ul" listStyleType="none" aria-labelledby="ages" gap="4" flexWrap="wrap" fontSize="xs">
        {AGES.map(({ bucket, label, color }) => {
          const sums = ages.find((age) => age.bucket === bucket)?.money ?? [];
          return lines(sums) === 0 ? null : (
            <HStack as="li" key={bucket} gap="1.5" align="start">
              <Box boxSize="2.5" borderRadius="sm" bg={color} mt="1" aria-hidden />
              <Text>
                {label}: {sums.map((sum) => money(sum.amount, sum.currency)).join(" + ")}
              </Text>
            </HStack>
          );
        })}
      </Flex>
    </Stack>
  );
}

function Causes({ causes, periods }: { causes: Model<"HeldCause">[]; periods: { periods?: string[] } }) {
  return (
    <TableFrame name="Causes of held money" borderWidth="0" maxH="420px">
      <Table.Root size="sm" stickyHeader>
        <Table.Header>
          <Table.Row>
            <Table.ColumnHeader scope="col">Cause and cure</Table.ColumnHeader>
            <Table.ColumnHeader scope="col" textAlign="end">
              Money
            </Table.ColumnHeader>
            <Table.ColumnHeader scope="col" textAlign="end">
              Age
            </Table.ColumnHeader>
            <Table.ColumnHeader scope="col">
              <span className="sr-only">Act</span>
            </Table.ColumnHeader>
          </Table.Row>
        </Table.Header>
        <Table.Body>
          {causes.map((cause) => (
            <Table.Row key={cause.code}>
              <Table.Cell>
                <Text fontWeight="medium">{cause.title}</Text>
                <Text fontSize="xs" color="fg.muted">
                  {cause.cure}
                </Text>
              </Table.Cell>
              <Table.Cell textAlign="end" fontVariantNumeric="tabular-nums" whiteSpace="nowrap">
                {cause.money.map((sum) => (
                  <Box key={sum.currency}>
                    <Text>{money(sum.amount, sum.currency)}</Text>
                    <TextLink
                     
                      to={linesLink({ ...periods, outcomes: ["held"], reason_codes: [cause.code], currencies: [sum.currency] })}
                      aria-label={`${cause.title}: ${counted(sum.lines, "line")}, open in Mapping › Invoices`}
                    >
                      <Text as="span" fontSize="xs">
                        {counted(sum.lines, "line")}
                      </Text>
                    </TextLink>
                  </Box>
                ))}
              </Table.Cell>
              <Table.Cell textAlign="end" whiteSpace="nowrap">
                <Badge colorPalette={cause.days > 90 ? "red" : cause.days > 30 ? "orange" : "gray"} title="How long the oldest line of this cause is held">
                  {counted(cause.days, "day")}
                </Badge>
                <Text as="span" className="sr-only">
                  , since <DateTime at={cause.oldest} />
                </Text>
              </Table.Cell>
              <Table.Cell textAlign="end">
                {cause.cure_link && (
                  <Button asChild size="xs" variant="outline">
                    <Link to={`/${cause.cure_link}`} aria-label={`Cure: ${cause.title}`}>
                      Cure
                    </Link>
                  </Button>
                )}
              </Table.Cell>
            </Table.Row>
          ))}
        </Table.Body>
      </Table.Root>
    </TableFrame>
  );
}
