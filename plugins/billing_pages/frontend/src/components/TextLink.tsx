import { Link as Styled } from "@chakra-ui/react";
import { Link, type LinkProps } from "react-router";

/** A link inside the pages that looks like one. */
export function TextLink(props: LinkProps) {
  return (
    <Styled asChild color="brand.fg" textDecoration="underline" textDecorationColor="border.emphasized" _hover={{ textDecorationColor: "currentColor" }}>
      <Link {...props} />
    </Styled>
  );
}
