import { Card, Heading, Stack, Text } from "@chakra-ui/react";
import { GuardedButton } from "../../components/GuardedButton";

/** Nothing is loaded yet: what will happen, and the first step that loads something without writing anything. */
export function FirstRun({ isReady, onDryRun }: { isReady: boolean; onDryRun: () => void }) {
  return (
    <Card.Root as="section" aria-labelledby="first-heading">
      <Card.Body gap="3" alignItems="start">
        <Heading size="lg" id="first-heading">
          No invoice is loaded yet
        </Heading>
        <Text maxW="70ch">
          {isReady
            ? "Everything is set up. Begin with a dry run: it loads the Verified invoices of AppXite and shows what each line would become in ConnectWise. It cannot write anything there."
            : "Follow the steps of the set-up above, one after the other. A dry run is possible as soon as the connections work: it loads the Verified invoices and shows what still has to be mapped, and it cannot write anything to ConnectWise."}
        </Text>
        <Stack direction="row">
          <GuardedButton permission="edit" colorPalette="brand" onClick={onDryRun}>
            Load invoices (dry run) …
          </GuardedButton>
        </Stack>
        <Text fontSize="sm" color="fg.muted" maxW="70ch">
          Then this page shows the money of each month: what is delivered, what waits for your approval, and what is held and why.
        </Text>
      </Card.Body>
    </Card.Root>
  );
}
