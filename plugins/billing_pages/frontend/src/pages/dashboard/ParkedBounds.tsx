import { Box, Card, Field, Heading, HStack, Stack, Text, Textarea } from "@chakra-ui/react";
import { useState } from "react";
import { ConfirmDialog } from "../../components/Dialog";
import { GuardedButton } from "../../components/GuardedButton";
import { Help } from "../../components/Help";
import { toast } from "../../components/Toaster";
import { TextLink } from "../../components/TextLink";
import { counted, money, quantity } from "../../lib/format";
import { planLink } from "../../lib/links";
import type { Model } from "../../models";
import { useAllow } from "./queries";

type Bound = Pick<Model<"Parked">, "bound_key" | "figure" | "detail"> & { title?: string };

/** What bounds park now, each with the figure that was found, and the way to let it pass. */
export function ParkedBounds({ parked }: { parked: Model<"Parked">[] }) {
  const [letting, setLetting] = useState<Bound | null>(null);
  if (parked.length === 0) return null;
  return (
    <Card.Root as="section" size="sm" aria-labelledby="parked-heading" borderColor="orange.emphasized">
      <Card.Header pb="2">
        <HStack>
          <Heading size="md" id="parked-heading">
            Parked by bounds
          </Heading>
          <Help label="What a bound is">
            A bound is a limit (Settings › Configuration) for what is unusual: an amount far above the customer's usual, many new Additions at once, an empty month. What is beyond it waits until somebody has looked and lets it pass, up to the figure shown.
          </Help>
        </HStack>
      </Card.Header>
      <Card.Body as="ul" listStyleType="none" gap="0" pt="0">
        {parked.map((bound) => (
          <HStack as="li" key={`${bound.bound_key}-${bound.plan_id}`} gap="4" py="2" borderTopWidth="1px" align="start" justify="space-between">
            <Box minW="0">
              <Text fontWeight="medium">{bound.detail}</Text>
              <Text fontSize="xs" color="fg.muted">
                {bound.lines !== null && counted(bound.lines, "line")}
                {bound.money_at_risk !== null && `, ${money(bound.money_at_risk, bound.currency)} wait`}
                {bound.plan_id !== null && (
                  <>
                    {bound.lines !== null && " · "}
                    <TextLink to={planLink(bound.plan_id)}>
                      plan {bound.plan_id}
                    </TextLink>
                  </>
                )}
              </Text>
            </Box>
            <GuardedButton permission="approve" size="xs" variant="outline" flexShrink={0} onClick={() => setLetting(bound)} aria-label={`Let pass: ${bound.detail}`}>
              Let pass …
            </GuardedButton>
          </HStack>
        ))}
      </Card.Body>
      {letting && <LetPassDialog bound={letting} onClose={() => setLetting(null)} />}
    </Card.Root>
  );
}

/** Let what a bound parks pass, up to the figure that is shown. */
export function LetPassDialog({ bound, onClose }: { bound: Bound; onClose: () => void }) {
  const [note, setNote] = useState("");
  const allow = useAllow();
  return (
    <ConfirmDialog
      title="Let it pass?"
      confirm={`Let pass up to ${quantity(bound.figure)}`}
      onConfirm={async () => {
        await allow.mutateAsync({ bound_key: bound.bound_key, up_to: bound.figure, note: note.trim() || null });
        toast("success", "It may pass", "The next run, or “Plan again”, plans it.");
      }}
      onClose={onClose}
    >
      <Stack gap="4">
        <Text>{bound.detail}</Text>
        <Text>
          Found: <strong>{quantity(bound.figure)}</strong>. It may pass up to this figure; if it grows beyond, it is parked again.
        </Text>
        <Field.Root>
          <Field.Label>Note (why it is right)</Field.Label>
          <Textarea value={note} onChange={(event) => setNote(event.target.value)} maxLength={1000} rows={2} />
        </Field.Root>
      </Stack>
    </ConfirmDialog>
  );
}
