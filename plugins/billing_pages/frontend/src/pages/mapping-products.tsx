import { KINDS } from "./mapping/kinds";
import { MappingPage } from "./mapping/MappingPage";

export default function Products() {
  return <MappingPage kind={KINDS.offers} />;
}
