/* Tabs, networks and a server that do what they will, by a seed: whatever happens, each subscription sees each message of
 * its channels once and in order, or is told of a reset. In what follows a tab is a subscription; some have one page.
 *
 *     SEEDS=3000 node tests/static/schedules.test.js    more of them
 *     SEED=17 node tests/static/schedules.test.js       one again, of which the course is printed if it fails
 */
"use strict";

const {World, assert, cursor, test} = require("./world.js");
const {OTHERS, Server} = require("./server.js");

const {SEED, SEEDS = 100} = process.env;
const CHANNELS = ["a", "b"];
const STEPS = 60;

/** Mulberry32. */
function randomOf(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

class Schedule {
  constructor(seed) {
    const world = this.world = new World(), random = world.random = randomOf(seed);
    this.seed = seed;
    this.trace = [];
    this.isLossy = random() < 0.4; // history is short, and may be lost
    this.hasLocks = random() < 0.7;
    this.server = new Server(world, {
      retained: this.isLossy ? 3 : Infinity,
      lifetime: this.chance(0.3) ? 25 : null,
      heartbeat: this.chance(0.5) ? 15 : 5
    });
    this.tabs = [];
    world.onrun = (page) => this.tabs.filter((tab) => tab.host === page).forEach((tab) => {
      tab.start ||= tab.cursor;
      if (tab.isNew && this.isLossy) tab.start = tab.forgiven = this.server.head; // what is gone by then is not missed
      tab.isNew = tab.cursor === "earliest";
    });
  }

  chance(probability) {
    return this.world.random() < probability;
  }

  pick(list) {
    return list[Math.floor(this.world.random() * list.length)];
  }

  note(text) {
    this.trace.push(`${(this.world.now / 1000).toFixed(3)} ${text}`);
  }

  /** Tabs that are as they should be, and so can be harmed. */
  get running() {
    return this.tabs.filter((tab) => tab.alive && !tab.isAway && !tab.isClosed);
  }

  openTab() {
    if (this.running.length > 5) return;
    const start = this.pick(["", this.server.head, this.server.head, "earliest"]), isNew = start === "earliest";
    const names = this.pick([["a", "b"], ["a", "b"], ["a"], ["b"]]), log = [["channels", names]];
    const neighbour = this.chance(0.5) && this.pick(this.running);
    const host = neighbour ? neighbour.host : this.world.tab(), shares = this.chance(0.85);
    if (!this.hasLocks) host.env.locks = null;
    const tab = Object.assign(Object.create(host), {log, isClosed: false, start: undefined, forgiven: "", isNew});
    this.tabs.push(tab);
    tab.follow({
      cursor: start,
      shareTabs: shares,
      onMessage: (message) => this.see(tab, "message", message),
      onReset: (reset) => this.see(tab, "reset", reset.cursor)
    }, `/channels/${names}`);
    tab.shares = shares;
    tab.start = isNew ? cursor(0, this.server.epoch) : start || tab.cursor;
    tab.name = `tab ${this.tabs.length}`;
    this.note(`${tab.name} opens ${names}, from ${start || "now"}, beside ${neighbour?.name}${shares ? "" : ", apart"}`);
  }

  see(tab, what, value) {
    if (!tab.start) tab.start = what === "reset" ? value : cursor(value.data - 1, value.id.slice(0, 8));
    tab.log.push([what, value]);
    this.note(`    ${tab.name}: ${what} ${value.id || value}`);
  }

  /** Does one thing, or nothing. */
  step() {
    const tab = this.pick(this.running), {server, world} = this, transport = this.pick(Object.keys(server.ways));
    const happen = (name) => {
      this.note(`${tab.name}: ${name}`);
      tab.happens(name);
    };
    const actions = {
      publish: () => {
        const names = Array.from({length: 1 + Math.floor(world.random() * 4)}, () => this.pick([...CHANNELS, OTHERS]));
        this.note(`publish ${names}`);
        names.forEach((name) => server.publish(name));
      },
      cut: () => {
        this.note(`cut ${transport}`);
        server.cut(transport);
      },
      kill: () => {
        this.note("kill all connections silently");
        server.kill();
      },
      restart: () => {
        this.note("restart");
        server.restart(500);
      },
      lose: () => {
        if (!this.isLossy) return;
        this.note("a new epoch");
        server.begin(`epoch${String(Object.keys(server.logs).length + 1).padStart(3, "0")}`);
        server.cut();
      },
      change: () => {
        server.ways[transport] = this.pick(["open", "open", "refused", "silent"]);
        this.note(`${transport} is ${server.ways[transport]}`);
      },
      open: () => this.openTab(),
      close: () => {
        this.note(`${tab.name} closes`);
        tab.subscription.close();
        tab.isClosed = true;
      },
      crash: () => {
        this.note(`${tab.name} crashes`);
        tab.host.crash(() => this.chance(0.5));
      },
      freeze: () => {
        this.note(`${tab.name} freezes`);
        tab.host.freeze();
        tab.host.isAway = true;
        world.later(world.random() * 90000, () => {
          this.note(`${tab.name} thaws`);
          tab.host.isAway = false;
          tab.host.thaw();
        });
      },
      leave: () => {
        happen("pagehide");
        tab.host.isAway = true;
        world.later(world.random() * 20000, () => {
          tab.host.isAway = false;
          happen("pageshow");
        });
      },
      online: () => happen(this.pick(["online", "visibilitychange"])),
      channels: () => {
        const {subscription} = tab;
        if (subscription.channels.length > 1) subscription.remove(this.pick(CHANNELS));
        else subscription.add(...CHANNELS);
        tab.log.push(["channels", subscription.channels.slice(), tab.cursor]);
        this.note(`${tab.name} follows ${subscription.channels}`);
      }
    };
    const often = ["publish", "publish", "publish", "publish", "cut", "cut", "change", "open"];
    const name = this.pick([...often, ...Object.keys(actions)]);
    if (tab || ["publish", "cut", "kill", "restart", "lose", "change", "open"].includes(name)) actions[name]();
  }

  async run() {
    const {server, world} = this;
    this.openTab();
    for (let step = 0; step < STEPS; step++) {
      await world.pass(this.pick([0, 20, 300, 3000, 12000]) * world.random());
      this.step();
    }
    this.note("peace");
    Object.keys(server.ways).forEach((transport) => { server.ways[transport] = "open"; });
    await world.pass(180000);
    CHANNELS.forEach((name) => server.publish(name));
    await world.pass(60000);
    this.tabs.forEach((tab) => this.judge(tab));
    this.judgeSharing();
    assert.deepEqual(world.errors, []);
  }

  judge(tab) {
    const {logs, head, epoch} = this.server;
    let place = tab.start, channels;
    const next = () => logs[place.slice(0, 8)].find(({id, channel}) => id > place && channels.includes(channel));
    for (const [what, value, at] of tab.log) {
      if (what === "channels") {
        if (at) {
          assert(!(next()?.id <= at), `${tab.name}: at ${at}, but nothing since ${place}`);
          if (at > place) place = at;
        }
        channels = value;
      } else if (what === "reset") {
        if (value <= tab.forgiven && value.slice(0, 8) === place.slice(0, 8)) continue;
        assert(this.isLossy, `${tab.name}: a reset, and nothing was lost`);
        assert(place.slice(0, 8) !== value.slice(0, 8) || value >= place, `${tab.name}: a reset back to ${value}`);
        place = value;
      } else {
        if (value.id <= tab.forgiven) continue;
        assert.equal(value.id, next()?.id, `${tab.name}: after ${place}`);
        place = value.id;
      }
    }
    if (!tab.alive || tab.isClosed) return;
    assert.equal(place.slice(0, 8), epoch, `${tab.name} does not know of the new epoch`);
    assert.equal(next(), undefined, `${tab.name} stands at ${place}, the log at ${head}`);
  }

  /** All pages that share have one connection, and others one each; some may be on their way to the next. */
  judgeSharing() {
    const sharing = new Set(this.running.filter((tab) => tab.shares).map((tab) => tab.host));
    const apart = new Set(this.running.filter((tab) => !tab.shares).map((tab) => tab.host));
    const most = Math.min(this.hasLocks ? 1 : 2, sharing.size) + apart.size;
    assert(this.world.live.length <= most, this.world.live.map(({url}) => url).join("\n"));
  }
}

for (const seed of SEED ? [Number(SEED)] : Array.from({length: SEEDS}, (_, index) => index + 1)) {
  test(`schedule ${seed}: each tab sees each message once and in order, or is told of a reset`, async () => {
    const schedule = new Schedule(seed);
    try {
      await schedule.run();
    } catch (error) {
      console.error(schedule.trace.join("\n"));
      throw error;
    }
  });
}
