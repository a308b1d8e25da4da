import { Empty } from "../components/Empty";
import { Page } from "../components/Page";

export default function ThisPage() {
  return (
    <Page title="Contracts">
      <Empty title="This page is being built" />
    </Page>
  );
}
