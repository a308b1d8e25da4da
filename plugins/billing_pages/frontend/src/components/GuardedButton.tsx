import { Button, type ButtonProps } from "@chakra-ui/react";
import { useMe } from "../lib/session";
import type { Permission } from "../models";

const WHO: Record<Permission, string> = {
  read: "may see these pages",
  edit: "may edit",
  approve: "may approve",
  admin: "is an administrator",
};

/** Why the reader may not do something that needs the permission; null: they may. */
export function useWhyNot(permission: Permission): string | null {
  const { me, may } = useMe();
  return me === undefined || may(permission) ? null : `Only somebody who ${WHO[permission]} can do this.`;
}

/**
 * A button that needs a permission. Without it, or with a reason (whyNot) of another kind, it stays in its place and can be reached
 * by keyboard, says why it cannot be pressed, and does nothing.
 */
export function GuardedButton({ permission, whyNot, onClick, ...props }: ButtonProps & { permission: Permission; whyNot?: string | null }) {
  const notAllowed = useWhyNot(permission);
  const reason = notAllowed ?? whyNot ?? null;
  if (reason === null) return <Button {...props} onClick={onClick} />;
  return <Button {...props} aria-disabled title={reason} aria-description={reason} opacity={0.5} cursor="not-allowed" onClick={(event) => event.preventDefault()} />;
}
