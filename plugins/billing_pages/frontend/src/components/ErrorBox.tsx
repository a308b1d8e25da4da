import { Alert, Button, Text } from "@chakra-ui/react";
import { ApiError } from "../lib/api";

/** An error in words: what happened, and what to do. */
export function ErrorBox({ error, onRetry, what }: { error: unknown; onRetry?: () => void; what?: string }) {
  const problem = error instanceof ApiError ? error.problem : null;
  const title = what ?? (problem ? sentence(problem.error) : "Something on this page went wrong");
  const message = problem?.message ?? (error instanceof Error ? error.message : String(error));
  return (
    <Alert.Root status="error" role="alert" alignItems="flex-start" flexShrink={0}>
      <Alert.Indicator />
      <Alert.Content>
        <Alert.Title>{title}</Alert.Title>
        <Alert.Description>
          <Text whiteSpace="pre-wrap">{message}</Text>
        </Alert.Description>
      </Alert.Content>
      {onRetry && (
        <Button size="xs" variant="outline" onClick={onRetry}>
          Try again
        </Button>
      )}
    </Alert.Root>
  );
}

/** "not found" as the start of a sentence. */
function sentence(words: string): string {
  const text = words.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
