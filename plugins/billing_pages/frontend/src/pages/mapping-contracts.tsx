import { KINDS } from "./mapping/kinds";
import { MappingPage } from "./mapping/MappingPage";

export default function Contracts() {
  return <MappingPage kind={KINDS.contracts} />;
}
