import { Center, HStack, Spinner, Text } from "@chakra-ui/react";

export function Loading({ what = "data" }: { what?: string }) {
  return (
    <Center py={10} role="status">
      <HStack color="fg.muted">
        <Spinner size="sm" />
        <Text>Loading {what} ...</Text>
      </HStack>
    </Center>
  );
}
