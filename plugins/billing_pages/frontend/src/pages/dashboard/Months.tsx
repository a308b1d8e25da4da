import { Box, Button, Card, Heading, HStack, SegmentGroup, Table, Text } from "@chakra-ui/react";
import { Bar, BarChart, CartesianGrid, Legend, ResponsiveContainer, Tooltip, XAxis, YAxis } from "recharts";
import { Help } from "../../components/Help";
import { TableFrame } from "../../components/TableFrame";
import { money, period as periodName } from "../../lib/format";
import type { Model } from "../../models";
import { OUTCOMES } from "../../lib/outcomes";

type Period = Model<"Period">;

/** Money over months by outcome, as a stacked chart or as a table; one currency at a time. */
export function Months({ periods, asTable, onAsTable, currency, onCurrency }: {
  periods: Period[];
  asTable: boolean;
  onAsTable: (asTable: boolean) => void;
  currency: string;
  onCurrency: (currency: string) => void;
}) {
  const currencies = [...new Set(periods.flatMap((period) => period.total.map((sum) => sum.currency)))];
  const shown = currencies.includes(currency) ? currency : (currencies[0] ?? "");
  const months = [...periods].reverse().slice(-12);
  return (
    <Card.Root as="section" size="sm" aria-labelledby="months-heading" minW="0">
      <Card.Header pb="2">
        <HStack flexWrap="wrap">
          <Heading size="md" id="months-heading">
            Over months
          </Heading>
          <Help label="What the chart shows">Money of each billing period (month of the invoice date) by what became of it until now. Up to twelve months.</Help>
          <HStack ms="auto">
            {currencies.length > 1 && (
              <SegmentGroup.Root size="xs" value={shown} onValueChange={(change) => change.value && onCurrency(change.value)} aria-label="Currency">
                <SegmentGroup.Indicator />
                <SegmentGroup.Items items={currencies} />
              </SegmentGroup.Root>
            )}
            <Button size="xs" variant="outline" onClick={() => onAsTable(!asTable)}>
              {asTable ? "Show as chart" : "Show as table"}
            </Button>
          </HStack>
        </HStack>
      </Card.Header>
      <Card.Body>{asTable ? <MonthsTable months={months} currency={shown} /> : <MonthsChart months={months} currency={shown} />}</Card.Body>
    </Card.Root>
  );
}

const amountOf = (period: Period, outcome: string, currency: string) =>
  period.outcomes.find((sum) => sum.outcome === outcome && sum.currency === currency)?.amount;

function MonthsChart({ months, currency }: { months: Period[]; currency: string }) {
  // Heights are drawn from numbers; every figure that is read comes from the server's own text.
  const data = months.map((period) => ({
    month: periodName(period.billing_period),
    period,
    ...Object.fromEntries(OUTCOMES.map(({ outcome }) => [outcome, Number(amountOf(period, outcome, currency) ?? 0)])),
  }));
  const compact = new Intl.NumberFormat(undefined, { notation: "compact" });
  return (
    <Box h="260px" role="img" aria-label={`Chart of money over months in ${currency}. “Show as table” gives its figures.`} fontSize="xs">
      <ResponsiveContainer width="100%" height="100%">
        <BarChart data={data} stackOffset="sign" margin={{ top: 8, right: 8, bottom: 0, left: 0 }} accessibilityLayer={false}>
          <CartesianGrid vertical={false} stroke="var(--chakra-colors-border)" />
          <XAxis dataKey="month" tick={{ fill: "var(--chakra-colors-fg-muted)" }} tickLine={false} stroke="var(--chakra-colors-border)" />
          <YAxis tickFormatter={(value: number) => compact.format(value)} tick={{ fill: "var(--chakra-colors-fg-muted)" }} tickLine={false} axisLine={false} width={48} />
          <Tooltip
            cursor={{ fill: "var(--chakra-colors-bg-muted)" }}
            content={({ payload }) => {
              const period = payload?.[0]?.payload?.period as Period | undefined;
              return period ? <MonthTip period={period} currency={currency} /> : null;
            }}
          />
          <Legend iconSize={10} itemSorter={null} formatter={(value: string) => <Text as="span" color="fg.muted">{value}</Text>} />
          {OUTCOMES.map(({ outcome, label, color }) => (
            <Bar key={outcome} dataKey={outcome} name={label} stackId="money" fill={`var(--chakra-colors-${color}-solid)`} isAnimationActive={false} maxBarSize={56} />
          ))}
        </BarChart>
      </ResponsiveContainer>
    </Box>
  );
}

function MonthTip({ period, currency }: { period: Period; currency: string }) {
  const rows = OUTCOMES.flatMap(({ outcome, label }) => {
    const amount = amountOf(period, outcome, currency);
    return amount === undefined ? [] : [{ label, amount }];
  });
  const total = period.total.find((sum) => sum.currency === currency);
  return (
    <Box bg="bg.panel" borderWidth="1px" borderRadius="md" shadow="md" p="2" fontSize="xs">
      <Text fontWeight="semibold">{periodName(period.billing_period)}</Text>
      {rows.map((row) => (
        <HStack key={row.label} justify="space-between" gap="4">
          <Text>{row.label}</Text>
          <Text fontVariantNumeric="tabular-nums">{money(row.amount, currency)}</Text>
        </HStack>
      ))}
      <HStack justify="space-between" gap="4" fontWeight="semibold">
        <Text>Invoiced</Text>
        <Text fontVariantNumeric="tabular-nums">{money(total?.amount, currency)}</Text>
      </HStack>
    </Box>
  );
}

function MonthsTable({ months, currency }: { months: Period[]; currency: string }) {
  return (
    <TableFrame name="Money over months" borderWidth="0">
      <Table.Root size="sm">
        <Table.Caption captionSide="top" textAlign="start" mb="1">
          Money by month and outcome in {currency}
        </Table.Caption>
        <Table.Header>
          <Table.Row>
            <Table.ColumnHeader scope="col">Month</Table.ColumnHeader>
            {OUTCOMES.map(({ outcome, label }) => (
              <Table.ColumnHeader key={outcome} scope="col" textAlign="end">
                {label}
              </Table.ColumnHeader>
            ))}
            <Table.ColumnHeader scope="col" textAlign="end">
              Invoiced
            </Table.ColumnHeader>
          </Table.Row>
        </Table.Header>
        <Table.Body>
          {[...months].reverse().map((period) => (
            <Table.Row key={period.billing_period}>
              <Table.Cell as="th" scope="row" textAlign="start" fontWeight="medium">
                {periodName(period.billing_period)}
              </Table.Cell>
              {OUTCOMES.map(({ outcome }) => (
                <Table.Cell key={outcome} textAlign="end" fontVariantNumeric="tabular-nums">
                  {money(amountOf(period, outcome, currency), null) || "–"}
                </Table.Cell>
              ))}
              <Table.Cell textAlign="end" fontVariantNumeric="tabular-nums" fontWeight="medium">
                {money(period.total.find((sum) => sum.currency === currency)?.amount, null) || "–"}
              </Table.Cell>
            </Table.Row>
          ))}
        </Table.Body>
      </Table.Root>
    </TableFrame>
  );
}
