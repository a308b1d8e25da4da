import { Flex, Heading, Input, Link, Stack } from "@chakra-ui/react";
import { useQuery } from "@tanstack/react-query";

import { Empty } from "../../../components/Empty";
import { ErrorBox } from "../../../components/ErrorBox";
import { Loading } from "../../../components/Loading";
import { Page } from "../../../components/Page";
import { useAddress } from "../../../lib/address";
import { useWhyNot } from "../../../components/GuardedButton";
import { fetchSettings } from "./api";
import { ChargeTypes } from "./ChargeTypes";
import { showInPage } from "./scroll";
import { SettingItem } from "./SettingItem";
import type { Setting } from "./types";

const CHARGE_TYPES = "Charge types";
const idOf = (group: string) => `group-${group.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}`;

/** Settings by group, and the charge types with their rules. */
export function ConfigurationPage() {
  const refused = useWhyNot("admin") ?? undefined;
  const [state, change] = useAddress({ q: "", key: "" });
  const settings = useQuery({ queryKey: ["settings"], queryFn: ({ signal }) => fetchSettings(signal) });
  const wanted = state.q.trim().toLowerCase();
  const found = (settings.data ?? []).filter((one) => textOf(one).includes(wanted));
  const groups = [...new Set(found.map((one) => one.group))].map((group) => ({ group, members: found.filter((one) => one.group === group) }));
  const hasChargeTypes = "charge types date rules".includes(wanted) || wanted === "";

  return (
    <Page
      title="Configuration"
      detail={refused ?? "What decides how lines are billed. Each change is kept with who made it and when."}
      actions={
        <Input
          size="sm"
          width="64"
          type="search"
          placeholder="Search settings"
          aria-label="Search settings"
          value={state.q}
          onChange={(event) => change({ q: event.target.value, key: "" })}
        />
      }
    >
      {settings.isPending && <Loading what="settings" />}
      {settings.isError && <ErrorBox error={settings.error} what="The settings could not be read" onRetry={() => void settings.refetch()} />}
      {settings.isSuccess && (
        <Flex gap={6} align="start">
          <Stack
            as="nav"
            aria-label="Groups of settings"
            position="sticky"
            top={0}
            width="44"
            flexShrink={0}
            gap={1}
            display={{ base: "none", lg: "flex" }}
            fontSize="sm"
          >
            {[...(hasChargeTypes ? [CHARGE_TYPES] : []), ...groups.map(({ group }) => group)].map((group) => (
              <Link
                key={group}
                href={`#${idOf(group)}`}
                onClick={(event) => {
                  event.preventDefault();
                  const heading = document.getElementById(idOf(group));
                  showInPage(heading);
                  heading?.focus({ preventScroll: true });
                }}
              >
                {group}
              </Link>
            ))}
          </Stack>
          <Stack gap={8} flex="1" minW={0} maxW="1100px" pb={8}>
            {hasChargeTypes && (
              <Group name={CHARGE_TYPES}>
                <ChargeTypes refusal={refused} />
              </Group>
            )}
            {groups.map(({ group, members }) => (
              <Group key={group} name={group}>
                {members.map((setting) => (
                  <SettingItem key={setting.key} setting={setting} refusal={refused} isNamed={setting.key === state.key} />
                ))}
              </Group>
            ))}
            {found.length === 0 && !hasChargeTypes && (
              <Empty title="No setting is like that" detail={`Nothing is called or explained with “${state.q}”.`} />
            )}
          </Stack>
        </Flex>
      )}
    </Page>
  );
}

function textOf(one: Setting): string {
  return `${one.key} ${one.title} ${one.group} ${one.description} ${one.value}`.toLowerCase();
}

function Group({ name, children }: { name: string; children: React.ReactNode }) {
  return (
    <Stack as="section" gap={3} aria-labelledby={idOf(name)}>
      <Heading as="h2" size="md" id={idOf(name)} tabIndex={-1} outline="none">
        {name}
      </Heading>
      {children}
    </Stack>
  );
}
