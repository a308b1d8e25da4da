import { Link as Styled } from "@chakra-ui/react";
import { Link, type LinkProps, useHref, useLocation } from "react-router";
import { airflowWindow, openInAirflow } from "../lib/airflow";

/** A link inside the pages that looks like one. */
export function TextLink(props: LinkProps) {
  return (
    <Styled asChild color="brand.fg" textDecoration="underline" textDecorationColor="border.emphasized" _hover={{ textDecorationColor: "currentColor" }}>
      <PageLink {...props} />
    </Styled>
  );
}

/** A link to a page of ours. From the tab of a DAG run, which is too small for it, it opens Airflow's page with all of ours. */
export function PageLink(props: LinkProps) {
  const isRunTab = useLocation().pathname === "/run";
  const href = useHref(props.to);
  if (!isRunTab) return <Link {...props} />;
  return (
    <Link
      {...props}
      onClick={(event) => {
        if (airflowWindow() === null) return;
        event.preventDefault();
        openInAirflow(pluginPath(href));
      }}
    />
  );
}

/** Airflow's address of a page of ours (href as the browser has it, with the folder these pages are served from). */
export function pluginPath(href: string): string {
  const base = new URL("..", document.baseURI).pathname;
  return `plugin/connectwise-billing/${href.startsWith(base) ? href.slice(base.length) : href.replace(/^\//, "")}`;
}
