import { useQuery } from "@tanstack/react-query";
import type { Model, Permission } from "../models";
import { get } from "./api";

export type Me = Model<"Me">;

/** Who is looking, and what they may do: `const { may } = useMe(); may("edit")`. The server checks again. */
export function useMe(): { me: Me | undefined; may: (permission: Permission) => boolean } {
  const { data: me } = useQuery({ queryKey: ["me"], queryFn: () => get<Me>("me"), staleTime: 300_000 });
  return { me, may: (permission) => me?.permissions.includes(permission) ?? false };
}
