import { Box, Text } from "@chakra-ui/react";
import type { ReactNode } from "react";

/** A figure with its name; with onClick it is a button that stays pressed while isOn. color: a palette name. */
export function Tile(props: {
  name: string;
  value: ReactNode;
  detail?: ReactNode;
  color?: string;
  isOn?: boolean;
  onClick?: () => void;
}) {
  const button = props.onClick ? ({ as: "button", type: "button", "aria-pressed": props.isOn ?? false, onClick: props.onClick } as const) : {};
  return (
    <Box
      {...(button as object)}
      colorPalette={props.color ?? "brand"}
      borderWidth={1}
      borderLeftWidth={4}
      borderLeftColor="colorPalette.solid"
      borderRadius="md"
      bg={props.isOn ? "colorPalette.subtle" : "bg"}
      px={3}
      py={2}
      minW="9rem"
      textAlign="left"
      cursor={props.onClick ? "pointer" : undefined}
      _hover={props.onClick ? { bg: "colorPalette.subtle" } : undefined}
      _focusVisible={{ outline: "2px solid", outlineColor: "colorPalette.focusRing", outlineOffset: "1px" }}
    >
      <Text fontSize="xs" color="fg.muted">
        {props.name}
      </Text>
      <Text fontWeight="semibold" fontVariantNumeric="tabular-nums">
        {props.value}
      </Text>
      {props.detail && (
        <Text fontSize="xs" color="fg.muted">
          {props.detail}
        </Text>
      )}
    </Box>
  );
}
