import { Badge, Box, Button, Card, Heading, HStack, Text } from "@chakra-ui/react";
import { useState } from "react";
import { GuardedButton } from "../../components/GuardedButton";
import { Help } from "../../components/Help";
import { SettleDialog, STATES, type Unsettled } from "../../components/SettleDialog";
import { TextLink } from "../../components/TextLink";
import { count, counted, DateTime, money } from "../../lib/format";
import { linesLink } from "../../lib/links";
import type { Model } from "../../models";

/** Additions that a person must look at in ConnectWise: refused, in conflict, or not as they were delivered. */
export function UnsettledAdditions({ page, onMore }: { page: Model<"UnsettledPage">; onMore: () => void }) {
  const [settling, setSettling] = useState<Unsettled | null>(null);
  // What is asked stays until it is answered, though somebody else may have settled the last one.
  if (page.total === 0 && settling === null) return null;
  return (
    <Card.Root as="section" size="sm" aria-labelledby="unsettled-heading" id="unsettled" scrollMarginTop="4">
      <Card.Header pb="2">
        <HStack>
          <Heading size="md" id="unsettled-heading">
            Additions to settle
          </Heading>
          <Badge colorPalette="red">{count(page.total)}</Badge>
          <Help label="What is to settle">
            ConnectWise refused these, holds them otherwise than they were sent, or invoiced them at a moment that leaves their fate open. Look at each in ConnectWise and at its invoices, then say what you found. Until then its lines wait.
          </Help>
        </HStack>
      </Card.Header>
      <Card.Body pt="0">
        <Box as="ul" listStyleType="none">
          {page.additions.map((addition) => (
            <HStack as="li" key={addition.delivery_key} gap="4" py="1.5" borderTopWidth="1px" justify="space-between" align="start">
              <Box minW="0" fontSize="sm">
                <Text>
                  <Badge colorPalette={addition.state === "conflict" ? "orange" : "red"} me="2">
                    {STATES[addition.state]}
                  </Badge>
                  <strong>{addition.company_name}</strong>, {addition.agreement_name}
                  {addition.connectwise_addition_id !== null && `, Addition ${addition.connectwise_addition_id}`}
                  {addition.line_ids.length > 0 && (
                    <>
                      : {money(addition.amount, addition.currency)} in <TextLink to={linesLink({ line_ids: addition.line_ids })}>{counted(addition.line_ids.length, "line")}</TextLink>
                    </>
                  )}{" "}
                  <Text as="span" color="fg.muted">
                    <DateTime at={addition.since} relative />
                  </Text>
                </Text>
                <Text color="fg.muted" whiteSpace="pre-wrap">
                  {addition.problem}
                </Text>
              </Box>
              <GuardedButton permission="approve" size="xs" variant="outline" flexShrink={0} onClick={() => setSettling(addition)} aria-label={`Settle: ${addition.company_name ?? ""} ${addition.invoice_description ?? ""}`}>
                Settle …
              </GuardedButton>
            </HStack>
          ))}
        </Box>
        {page.total > page.additions.length && (
          <Button size="xs" variant="ghost" onClick={onMore}>
            Show more
          </Button>
        )}
      </Card.Body>
      {settling && <SettleDialog addition={settling} onClose={() => setSettling(null)} />}
    </Card.Root>
  );
}
