// Plays a user through Segment's client for Node: node send.mjs HOST WRITE_KEY USER PURCHASES
// Ends with 1 and says why if a call was not delivered.
import { Analytics } from "@segment/analytics-node";

const [host, writeKey, userId, purchases] = process.argv.slice(2);
const analytics = new Analytics({ host, writeKey, flushAt: 40, flushInterval: 500 });
analytics.on("error", (error) => {
  console.error(`not delivered: ${error.code} ${error.reason ?? ""}`);
  process.exitCode = 1;
});

analytics.identify({ userId, traits: { email: "ada@example.com", tier: "gold", joined: new Date("2025-01-31T12:00:00Z") } });
for (let number = 0; number < Number(purchases); number++) {
  analytics.track({ userId, event: "order_placed", properties: { number, text: "Grüße 👋" } });
}
analytics.page({ userId, name: "Cart", properties: { url: "/cart" } });
analytics.screen({ userId, name: "Home" });
analytics.group({ userId, groupId: "acme", traits: { plan: "team" } });
analytics.alias({ userId, previousId: "anonymous-1" });
await analytics.closeAndFlush({ timeout: 20_000 });
