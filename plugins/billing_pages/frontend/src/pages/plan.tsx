import { useParams } from "react-router";
import { Empty } from "../components/Empty";
import { Page } from "../components/Page";
import { OnePlan } from "./plan/OnePlan";
import { PlanList } from "./plan/PlanList";

/** All plans, or (with a number in the address) one. */
export default function Plan() {
  const { planId } = useParams();
  if (planId === undefined) return <PlanList />;
  if (!/^[1-9]\d{0,15}$/.test(planId))
    return (
      <Page title="Plan">
        <Empty title="There is no such plan" detail="A plan's address ends in its number." />
      </Page>
    );
  return <OnePlan key={planId} planId={Number(planId)} />;
}
