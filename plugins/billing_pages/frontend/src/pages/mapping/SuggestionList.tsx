import { Badge, Box, Button, HStack, List, Stack, Text } from "@chakra-ui/react";

import type { Suggestion } from "./types";

/** How much a suggestion is worth, in a word; colour never tells it alone. */
export function ScoreBadge({ suggestion }: { suggestion: Suggestion }) {
  const [palette, word] = suggestion.is_only_strong
    ? ["green", "strong"]
    : suggestion.score >= 90
      ? ["blue", "good"]
      : ["gray", "similar"];
  return (
    <Badge colorPalette={palette} variant="subtle">
      {word} · {suggestion.score} of 100
    </Badge>
  );
}

interface Props {
  suggestions: Suggestion[];
  target: string;
  refusal?: string;
  onTake: (suggestion: Suggestion) => void;
}

/** All candidates of an entry, best first, each with all that speaks for it. Nothing is applied by itself. */
export function SuggestionList({ suggestions, target, refusal, onTake }: Props) {
  if (suggestions.length === 0)
    return (
      <Text fontSize="sm" color="fg.muted">
        Nothing found that looks like it. Choose the {target} below.
      </Text>
    );
  return (
    <Stack as="ul" listStyleType="none" gap={2}>
      {suggestions.map((one) => (
        <Box as="li" key={one.target_id} borderWidth="1px" borderRadius="md" p={3} opacity={one.unusable ? 0.75 : 1}>
          <HStack justify="space-between" align="start" gap={3}>
            <Stack gap={1} minW={0}>
              <HStack wrap="wrap" gap={2}>
                <Text fontWeight="medium">{one.target_name}</Text>
                <ScoreBadge suggestion={one} />
              </HStack>
              <Text fontSize="xs" color="fg.muted">
                {[one.target_detail, `id ${one.target_id}`].filter(Boolean).join(" · ")}
              </Text>
              <List.Root fontSize="sm" ps={4}>
                {one.evidence.map((evidence) => (
                  <List.Item key={evidence.text}>{evidence.text}</List.Item>
                ))}
              </List.Root>
              {one.unusable && (
                <Text fontSize="sm" color="fg.error">
                  Cannot be used: {one.unusable}
                </Text>
              )}
            </Stack>
            <Button
              size="xs"
              variant="outline"
              flexShrink={0}
              disabled={refusal !== undefined || one.unusable !== null}
              title={refusal}
              aria-label={`Approve ${one.target_name}`}
              onClick={() => onTake(one)}
            >
              Approve this
            </Button>
          </HStack>
        </Box>
      ))}
    </Stack>
  );
}
