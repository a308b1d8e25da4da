import { SimpleGrid } from "@chakra-ui/react";
import { useQuery } from "@tanstack/react-query";
import { ErrorBox } from "../../components/ErrorBox";
import { Tile } from "../../components/Tile";
import { useAddress } from "../../lib/address";
import { get } from "../../lib/api";
import { count, DateTime } from "../../lib/format";
import type { Model } from "../../models";
import { LOG_ADDRESS } from "./address";

/** Figures of the last 30 days; errors and warnings filter the entries below. */
export function LogTiles() {
  const [address, change] = useAddress(LOG_ADDRESS);
  const tiles = useQuery({ queryKey: ["log-tiles"], queryFn: () => get<Model<"LogTiles">>("logs/tiles"), refetchInterval: 10_000 });
  if (tiles.error) return <ErrorBox error={tiles.error} onRetry={() => tiles.refetch()} />;
  const show = (levels: string) => change({ levels: address.levels === levels ? "" : levels });
  const figure = (value: number | undefined) => (value === undefined ? "…" : count(value));
  return (
    <SimpleGrid columns={{ base: 2, md: 4 }} gap="3" mb="3">
      <Tile name="Entries, last 30 days" value={figure(tiles.data?.total)} isOn={address.levels === ""} onClick={() => change({ levels: "" })} />
      <Tile name="Errors" value={figure(tiles.data?.errors)} color="red" isOn={address.levels === "ERROR"} onClick={() => show("ERROR")} />
      <Tile name="Warnings" value={figure(tiles.data?.warnings)} color="orange" isOn={address.levels === "WARNING"} onClick={() => show("WARNING")} />
      <Tile name="Last update" value={tiles.data ? tiles.data.last_update ? <DateTime at={tiles.data.last_update} relative /> : "never" : "…"} color="green" />
    </SimpleGrid>
  );
}
