import { Badge, Box, Button, Card, Field, Heading, HStack, Stack, Text, Textarea } from "@chakra-ui/react";
import { useState } from "react";
import { ConfirmDialog } from "../../components/Dialog";
import { GuardedButton } from "../../components/GuardedButton";
import { Help } from "../../components/Help";
import { TextLink } from "../../components/TextLink";
import { toast } from "../../components/Toaster";
import { count, counted, money, quantity } from "../../lib/format";
import { linesLink, planLink } from "../../lib/links";
import type { Model } from "../../models";
import { useAllow } from "./queries";

type Parked = Model<"Parked">;
/** What letting a bound pass needs: its key, the figure that was shown, and the words. */
export type Passable = Pick<Parked, "bound_key" | "figure" | "detail"> & Partial<Pick<Parked, "organization_name">>;

const FEW = 3;

/** What bounds park now, by reason, each with the figure that was found, and the way to let it pass. */
export function ParkedBounds({ parked }: { parked: Parked[] }) {
  const [letting, setLetting] = useState<Passable[] | null>(null);
  if (parked.length === 0) return null;
  const reasons = [...new Set(parked.map((bound) => bound.reason))];
  return (
    <Card.Root as="section" size="sm" aria-labelledby="parked-heading" id="parked" scrollMarginTop="4">
      <Card.Header pb="2">
        <HStack>
          <Heading size="md" id="parked-heading">
            Parked by bounds
          </Heading>
          <Badge colorPalette="orange">{count(parked.length)}</Badge>
          <Help label="What a bound is">
            A bound is a limit (Settings › Configuration) for what is unusual: an amount far above the customer's usual, many new Additions at once, an empty month. What is beyond it waits until somebody has looked and lets it pass, up to the figure shown.
          </Help>
        </HStack>
      </Card.Header>
      <Card.Body pt="0" gap="4">
        {reasons.map((reason) => (
          <Reason key={reason} reason={reason} parked={parked.filter((bound) => bound.reason === reason)} onLet={setLetting} />
        ))}
      </Card.Body>
      {letting && <LetPassDialog bounds={letting} onClose={() => setLetting(null)} />}
    </Card.Root>
  );
}

function Reason({ reason, parked, onLet }: { reason: string; parked: Parked[]; onLet: (bounds: Passable[]) => void }) {
  const [showsAll, setShowsAll] = useState(false);
  const code = parked[0]?.bound_key.split("/")[0] ?? "";
  const hasLines = parked.some((bound) => bound.lines !== null);
  return (
    <Box>
      <HStack gap="3" mb="1" wrap="wrap">
        <Heading as="h3" size="sm">
          {reason}
        </Heading>
        {hasLines && <TextLink to={linesLink({ outcomes: ["held"], reason_codes: [code] })}>look at its lines</TextLink>}
        {parked.length > 1 && (
          <GuardedButton permission="approve" size="xs" variant="outline" ms="auto" onClick={() => onLet(parked)}>
            Let all {count(parked.length)} pass …
          </GuardedButton>
        )}
      </HStack>
      <Box as="ul" listStyleType="none">
        {(showsAll ? parked : parked.slice(0, FEW)).map((bound) => (
          <HStack as="li" key={`${bound.bound_key}-${bound.plan_id}`} gap="4" py="1" borderTopWidth="1px" justify="space-between">
            <Text minW="0" fontSize="sm">
              {bound.organization_name !== null && `${bound.organization_name}: `}
              {bound.money_at_risk !== null && <strong>{money(bound.money_at_risk, bound.currency)} </strong>}
              {bound.lines !== null && (
                <>
                  in <TextLink to={linesLink({ outcomes: ["held"], bound_key: bound.bound_key })}>{counted(bound.lines, "line")}</TextLink>:{" "}
                </>
              )}
              {bound.detail}
              {bound.plan_id !== null && (
                <>
                  {" · "}
                  <TextLink to={planLink(bound.plan_id)}>plan {bound.plan_id}</TextLink>
                </>
              )}
            </Text>
            <GuardedButton permission="approve" size="xs" variant="outline" flexShrink={0} onClick={() => onLet([bound])} aria-label={`Let pass: ${bound.organization_name ?? ""} ${bound.detail}`}>
              Let pass …
            </GuardedButton>
          </HStack>
        ))}
      </Box>
      {parked.length > FEW && (
        <Button size="xs" variant="ghost" aria-expanded={showsAll} onClick={() => setShowsAll(!showsAll)}>
          {showsAll ? "Show fewer" : `Show all ${count(parked.length)}`}
        </Button>
      )}
    </Box>
  );
}

/** Let what bounds park pass, each up to the figure that is shown. */
export function LetPassDialog({ bounds, onClose }: { bounds: Passable[]; onClose: () => void }) {
  const [note, setNote] = useState("");
  const allow = useAllow();
  const [only] = bounds;
  const letAll = async () => {
    // One after the other: what was let pass before an error stays so.
    for (const bound of bounds) await allow.mutateAsync({ bound_key: bound.bound_key, up_to: bound.figure, note: note.trim() || null });
    toast("success", bounds.length === 1 ? "It may pass" : `${count(bounds.length)} may pass`, "The next run, or “Plan again”, plans it.");
  };
  return (
    <ConfirmDialog
      title={bounds.length === 1 ? "Let it pass?" : `Let ${count(bounds.length)} pass?`}
      confirm={bounds.length === 1 && only ? `Let pass up to ${quantity(only.figure)}` : `Let all ${count(bounds.length)} pass`}
      onConfirm={letAll}
      onClose={onClose}
    >
      <Stack gap="4">
        <Box as="ul" ps="4" maxH="240px" overflow="auto" tabIndex={0}>
          {bounds.map((bound) => (
            <li key={bound.bound_key}>
              <strong>{quantity(bound.figure)}</strong>: {bound.organization_name && `${bound.organization_name}, `}
              {bound.detail}
            </li>
          ))}
        </Box>
        <Text>Each may pass up to the figure shown. If it grows beyond, it is parked again.</Text>
        <Field.Root>
          <Field.Label>Note (why it is right)</Field.Label>
          <Textarea value={note} onChange={(event) => setNote(event.target.value)} maxLength={1000} rows={2} />
        </Field.Root>
      </Stack>
    </ConfirmDialog>
  );
}
