import { Box, type BoxProps } from "@chakra-ui/react";

/** Around a table: it scrolls by itself, also by keyboard, so that the page never does sideways. name: read to screen readers. */
export function TableFrame({ name, ...props }: BoxProps & { name: string }) {
  return <Box css={{ "& tr": { bg: "transparent" }, "& thead th, & thead th button": { fontSize: "xs", fontWeight: "semibold" } }} role="region" aria-label={name} tabIndex={0} overflow="auto" maxW="full" borderWidth="1px" borderRadius="md" {...props} />;
}
