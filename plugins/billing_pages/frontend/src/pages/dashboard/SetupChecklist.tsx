import { Badge, Box, Button, Card, Heading, HStack, List, Text } from "@chakra-ui/react";
import { useState } from "react";
import { Link } from "react-router";
import type { Model } from "../../models";

type Step = Model<"SetupStep">;

/**
 * What is set up and what to do next. What is done is put away as soon as something is; once everything is, the whole list is.
 */
export function SetupChecklist({ setup }: { setup: Model<"Setup"> }) {
  const open = setup.steps.filter((step) => step.state !== "done");
  const next = open.find((step) => step.state === "todo") ?? open[0];
  const done = setup.steps.length - open.length;
  const [showsAll, setShowsAll] = useState(false);
  const shown = showsAll ? setup.steps : open;

  return (
    <Card.Root as="section" aria-labelledby="setup-heading" size="sm" borderColor={next ? "orange.emphasized" : undefined}>
      <Card.Header flexDirection="row" alignItems="center" gap="3" py="3" flexWrap="wrap">
        <Heading size="md" id="setup-heading">
          Set-up
        </Heading>
        <Badge colorPalette={next ? "orange" : "green"}>{next ? `${done} of ${setup.steps.length} done` : "complete"}</Badge>
        {done > 0 && (
          <Button size="xs" variant="ghost" ms="auto" aria-expanded={showsAll} onClick={() => setShowsAll(!showsAll)}>
            {showsAll ? "Show only what is open" : "Show all steps"}
          </Button>
        )}
      </Card.Header>
      {shown.length > 0 && (
        <Card.Body pt="0" pb="3">
          <List.Root as="ol" variant="plain" gap="0.5">
            {shown.map((step) => (
              <StepRow key={step.key} step={step} isNext={step === next} />
            ))}
          </List.Root>
        </Card.Body>
      )}
    </Card.Root>
  );
}

const STATES = {
  done: { sign: "✓", color: "green.fg", word: "Done", act: "Look" },
  todo: { sign: "○", color: "orange.fg", word: "To do", act: "Do it" },
  warning: { sign: "!", color: "amber.fg", word: "Look at it", act: "Look" },
} as const;

function StepRow({ step, isNext }: { step: Step; isNext: boolean }) {
  const state = STATES[step.state];
  return (
    <List.Item borderLeftWidth="3px" borderLeftColor={isNext ? "orange.solid" : "transparent"} px="2" py="1" display="block">
      <HStack align="center" gap="3" w="full">
        <Text color={state.color} fontWeight="bold" w="4" textAlign="center" aria-hidden>
          {state.sign}
        </Text>
        <Box flex="1" minW="0">
          <Text fontWeight={isNext ? "semibold" : "medium"}>
            <span className="sr-only">{state.word}: </span>
            {step.title}
            {isNext && (
              <Badge ms="2" colorPalette="orange" variant="outline">
                next
              </Badge>
            )}
          </Text>
          <Text fontSize="xs" color="fg.muted">
            {step.detail}
          </Text>
        </Box>
        {step.link && (
          <Button asChild size="xs" variant={isNext ? "solid" : "outline"}>
            <Link to={`/${step.link}`} aria-label={`${state.act}: ${step.title}`}>
              {state.act}
            </Link>
          </Button>
        )}
      </HStack>
    </List.Item>
  );
}
