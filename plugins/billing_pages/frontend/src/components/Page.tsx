import { Flex, Heading, HStack, Text } from "@chakra-ui/react";
import { type ReactNode, useEffect } from "react";

/** A page: its heading, what it is for, its actions on the right. isFull: the content fills the window (a grid). */
export function Page(props: { title: string; detail?: ReactNode; actions?: ReactNode; isFull?: boolean; children: ReactNode }) {
  useEffect(() => {
    document.title = `${props.title} · ConnectWise billing`;
  }, [props.title]);
  return (
    <Flex direction="column" gap={3} flex={props.isFull ? 1 : undefined} minH={props.isFull ? "480px" : undefined}>
      <Flex justify="space-between" align="center" gap={3} wrap="wrap" flexShrink={0}>
        <div>
          <Heading as="h1" size="lg">
            {props.title}
          </Heading>
          {props.detail && <Text color="fg.muted">{props.detail}</Text>}
        </div>
        {props.actions && <HStack wrap="wrap">{props.actions}</HStack>}
      </Flex>
      {props.children}
    </Flex>
  );
}
