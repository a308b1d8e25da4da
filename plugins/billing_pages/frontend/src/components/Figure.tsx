import { Box, HStack, Text } from "@chakra-ui/react";
import type { ReactNode } from "react";
import { Help } from "./Help";

/** A figure with its name, what it means behind a question mark, and (children) what stands below it. color: a palette's name. */
export function Figure({ name, help, color, value, children }: { name: string; help: string; color?: string; value: ReactNode; children?: ReactNode }) {
  return (
    <Box borderWidth="1px" borderTopWidth="3px" borderTopColor={color ? `${color}.solid` : "border.emphasized"} borderRadius="md" px="3" py="2" minW="0">
      <HStack gap="1" fontSize="sm" color="fg.muted">
        <Text>{name}</Text>
        <Help label={`What “${name}” means`}>{help}</Help>
      </HStack>
      <Box fontSize="lg" fontWeight="semibold" fontVariantNumeric="tabular-nums" lineHeight="short">
        {value}
      </Box>
      <Box fontSize="xs" color="fg.muted" fontVariantNumeric="tabular-nums">
        {children}
      </Box>
    </Box>
  );
}
