import { Badge, Box, Button, Card, Collapsible, Heading, HStack, List, Text } from "@chakra-ui/react";
import { useState } from "react";
import { Link } from "react-router";
import type { Model } from "../../models";

/** What is set up and what to do next. Closed once everything is done; open steps come with a button that leads there. */
export function SetupChecklist({ setup }: { setup: Model<"Setup"> }) {
  const next = setup.steps.find((step) => step.state === "todo");
  const warnings = setup.steps.filter((step) => step.state === "warning").length;
  const done = setup.steps.filter((step) => step.state === "done").length;
  const [isOpen, setIsOpen] = useState(next !== undefined);

  return (
    <Collapsible.Root open={isOpen} onOpenChange={(change) => setIsOpen(change.open)} asChild>
      <Card.Root as="section" aria-labelledby="setup-heading" size="sm" borderColor={next ? "orange.emphasized" : undefined}>
        <Card.Header flexDirection="row" alignItems="center" gap="3" pb={isOpen ? undefined : "4"} flexWrap="wrap">
          <Heading size="md" id="setup-heading">
            Set-up
          </Heading>
          <Badge colorPalette={next ? "orange" : "green"}>{next ? `${done} of ${setup.steps.length} done` : "complete"}</Badge>
          {warnings > 0 && <Badge colorPalette="yellow">{warnings} to look at</Badge>}
          {next && !isOpen && <Text fontSize="sm">Next: {next.title}</Text>}
          <Collapsible.Trigger asChild>
            <Button size="xs" variant="ghost" ms="auto">
              {isOpen ? "Hide steps" : "Show steps"}
            </Button>
          </Collapsible.Trigger>
        </Card.Header>
        <Collapsible.Content>
          <Card.Body>
            <List.Root as="ol" variant="plain" gap="1">
              {setup.steps.map((step) => (
                <Step key={step.key} step={step} isNext={step === next} />
              ))}
            </List.Root>
          </Card.Body>
        </Collapsible.Content>
      </Card.Root>
    </Collapsible.Root>
  );
}

const STATES = {
  done: { sign: "✓", color: "green.fg", word: "Done" },
  todo: { sign: "○", color: "orange.fg", word: "To do" },
  warning: { sign: "!", color: "yellow.fg", word: "Look at it" },
} as const;

function Step({ step, isNext }: { step: Model<"SetupStep">; isNext: boolean }) {
  const state = STATES[step.state];
  return (
    <List.Item borderRadius="md" bg={isNext ? "orange.subtle" : undefined} px="2" py="1.5">
      <HStack align="start" gap="3">
        <Text color={state.color} fontWeight="bold" w="4" textAlign="center" aria-hidden>
          {state.sign}
        </Text>
        <Box flex="1" minW="0">
          <Text fontWeight={isNext ? "semibold" : "medium"}>
            <Text as="span" srOnly>
              {state.word}:{" "}
            </Text>
            {step.title}
          </Text>
          <Text fontSize="sm" color="fg.muted">
            {step.detail}
          </Text>
        </Box>
        {step.link && (
          <Button asChild size="xs" variant={isNext ? "solid" : "outline"} colorPalette={isNext ? "brand" : undefined}>
            <Link to={`/${step.link}`} aria-label={`${step.state === "done" ? "Look at" : "Do it"}: ${step.title}`}>
              {step.state === "done" ? "Look" : "Do it"}
            </Link>
          </Button>
        )}
      </HStack>
    </List.Item>
  );
}
