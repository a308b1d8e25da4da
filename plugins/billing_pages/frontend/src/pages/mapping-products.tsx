import { Empty } from "../components/Empty";
import { Page } from "../components/Page";

export default function ThisPage() {
  return (
    <Page title="Products">
      <Empty title="This page is being built" />
    </Page>
  );
}
