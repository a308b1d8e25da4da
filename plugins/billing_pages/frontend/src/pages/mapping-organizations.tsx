import { KINDS } from "./mapping/kinds";
import { MappingPage } from "./mapping/MappingPage";

export default function Organizations() {
  return <MappingPage kind={KINDS.organizations} />;
}
