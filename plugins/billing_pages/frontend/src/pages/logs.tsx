import { Tabs } from "@chakra-ui/react";
import { Page } from "../components/Page";
import { useAddress } from "../lib/address";
import { Attempts } from "./logs/Attempts";
import { Entries } from "./logs/Entries";
import { LogTiles } from "./logs/LogTiles";

const ADDRESS = { show: "logs" };

/** What the pipeline had to say: the last 30 days live, the ledger for ever, and every write to ConnectWise. */
export default function Logs() {
  const [address, change] = useAddress(ADDRESS);
  return (
    <Page title="System Logs" detail="The last 30 days, live. Behind it the ledger is kept for ever, and every write to ConnectWise with its answer.">
      <Tabs.Root value={address.show} onValueChange={(tab) => change({ show: tab.value })} variant="line" size="sm" lazyMount unmountOnExit>
        <Tabs.List>
          <Tabs.Trigger value="logs">Last 30 days</Tabs.Trigger>
          <Tabs.Trigger value="ledger">Ledger (everything)</Tabs.Trigger>
          <Tabs.Trigger value="writes">Writes to ConnectWise</Tabs.Trigger>
        </Tabs.List>
        <Tabs.Content value="logs">
          <LogTiles />
          <Entries isLedger={false} />
        </Tabs.Content>
        <Tabs.Content value="ledger">
          <Entries isLedger />
        </Tabs.Content>
        <Tabs.Content value="writes">
          <Attempts />
        </Tabs.Content>
      </Tabs.Root>
    </Page>
  );
}
