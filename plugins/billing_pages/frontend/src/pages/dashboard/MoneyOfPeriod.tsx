import { Box, Card, Flex, HStack, Heading, SimpleGrid, Text } from "@chakra-ui/react";
import { Figure } from "../../components/Figure";
import { Help } from "../../components/Help";
import { TextLink } from "../../components/TextLink";
import { count, counted, money, period as periodName } from "../../lib/format";
import type { Model } from "../../models";
import { linesLink } from "../../lib/links";
import { OUTCOMES } from "../../lib/outcomes";

type Period = Model<"Period">;

/** The money of a billing period by outcome: a tile for each, with its lines behind it, and a bar per currency. */
export function MoneyOfPeriod({ period }: { period: Period }) {
  const currencies = period.total.map((sum) => sum.currency);
  return (
    <Card.Root as="section" size="sm" aria-labelledby="money-heading">
      <Card.Header pb="2">
        <HStack>
          <Heading size="md" id="money-heading">
            {periodName(period.billing_period)}
          </Heading>
          <Help label="What these figures are">
            All lines of the Verified invoices with an invoice date in this month, by what became of them. Every line counts once, so the tiles add up to what is invoiced.
          </Help>
          <Text ms="auto" fontSize="sm" color="fg.muted">
            {counted(period.invoices, "invoice")}
          </Text>
        </HStack>
      </Card.Header>
      <Card.Body gap="4">
        <SimpleGrid columns={{ base: 2, md: 3, xl: 6 }} gap="3">
          <Tile label="Invoiced" help="All lines of the month, before anything is held or excluded." sums={period.total} to={linesLink({ periods: [period.billing_period] })} />
          {OUTCOMES.map(({ outcome, label, help, color }) => (
            <Tile
              key={outcome}
              label={label}
              help={help}
              color={color}
              sums={period.outcomes.filter((sum) => sum.outcome === outcome)}
              to={linesLink({ periods: [period.billing_period], outcomes: [outcome] })}
            />
          ))}
        </SimpleGrid>
        {currencies.map((currency) => (
          <OutcomeBar key={currency} currency={currency} sums={period.outcomes.filter((sum) => sum.currency === currency)} />
        ))}
      </Card.Body>
    </Card.Root>
  );
}

function Tile({ label, help, color, sums, to }: { label: string; help: string; color?: string; sums: Model<"Money">[]; to: string }) {
  const lines = sums.reduce((total, sum) => total + sum.lines, 0);
  const value =
    lines === 0 ? (
      <Text as="span" color="fg.muted" fontWeight="medium">
        none
      </Text>
    ) : (
      sums.map((sum) => (
        <Box key={sum.currency} whiteSpace="nowrap">
          {money(sum.amount, sum.currency)}
        </Box>
      ))
    );
  return (
    <Figure name={label} help={help} color={color} value={value}>
      {lines > 0 && (
        <TextLink to={to} aria-label={`${label}: ${count(lines)} lines, open in Mapping › Invoices`}>
          {counted(lines, "line")}
        </TextLink>
      )}
    </Figure>
  );
}

/** Shares of a currency's money, drawn to scale; money below zero (credits) has no width. The figures stand in the tiles. */
function OutcomeBar({ currency, sums }: { currency: string; sums: Model<"OutcomeMoney">[] }) {
  const width = (amount: string) => Math.max(0, Number(amount));
  const total = sums.reduce((all, sum) => all + width(sum.amount), 0);
  if (total === 0) return null;
  const drawn = OUTCOMES.flatMap(({ outcome, label, color }) => {
    const sum = sums.find((each) => each.outcome === outcome);
    return sum && width(sum.amount) > 0 ? [{ label, color, share: (100 * width(sum.amount)) / total, text: money(sum.amount, currency) }] : [];
  });
  const percent = (share: number) => (share < 1 ? "<1" : Math.round(share));
  return (
    <Box>
      <Flex h="4" borderRadius="full" overflow="hidden" role="img" aria-label={`${currency}: ${drawn.map((each) => `${each.label} ${each.text}`).join(", ")}`}>
        {drawn.map((each) => (
          <Box key={each.label} bg={`${each.color}.solid`} style={{ width: `${each.share}%` }} minW="3px" title={`${each.label}: ${each.text}`} />
        ))}
      </Flex>
      <HStack gap="4" mt="1.5" fontSize="xs" color="fg.muted" flexWrap="wrap" aria-hidden>
        <Text fontWeight="medium">{currency}</Text>
        {drawn.map((each) => (
          <HStack key={each.label} gap="1.5">
            <Box boxSize="2.5" borderRadius="sm" bg={`${each.color}.solid`} />
            {each.label} {percent(each.share)} %
          </HStack>
        ))}
      </HStack>
    </Box>
  );
}
