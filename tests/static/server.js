/* A model of the server, as docs/protocol.md tells it: one log, and each connection a cursor over it. Also of networks:
 * `server.ways[transport]` is "open", "refused" (ends at once) or "silent" (opens, delivers nothing).
 */
"use strict";

const {cursor} = require("./world.js");

const UNKNOWN = "00000000-000000000000000";
const OTHERS = "another's channel";

class Server {
  constructor(world, {retained = Infinity, heartbeat = 15, lifetime = null, window = 25} = {}) {
    Object.assign(this, {world, retained, heartbeat, lifetime, window});
    this.ways = {websocket: "open", eventsource: "open", longpoll: "open"};
    this.logs = {}; // by epoch: all that ever was published
    this.resets = 0;
    this._connections = [];
    this.begin("epoch001");
    world.onconnect = (connection) => this._arrive(connection);
  }

  /** Under a new epoch the log goes on empty. */
  begin(epoch) {
    this.epoch = epoch;
    this.log = this.logs[epoch] = [];
    this._floors = {};
  }

  get head() {
    return cursor(this.log.length, this.epoch);
  }

  publish(channel = OTHERS) {
    const message = {id: cursor(this.log.length + 1, this.epoch), channel, data: this.log.length + 1, time: 0};
    this.log.push(message);
    const own = this.log.filter((each) => each.channel === channel);
    if (own.length > this.retained) this._floors[channel] = own.at(-this.retained - 1).id;
    this._each((connection) => this._serve(connection));
  }

  /** All connections end; what was on its way is lost. */
  cut(transport) {
    this._each((connection) => {
      if (transport && connection.transport !== transport) return;
      this._forget(connection);
      this._later(connection, () => connection.end());
    });
  }

  /** All connections are dead, and nobody is told. */
  kill() {
    this._each((connection) => this._forget(connection));
  }

  restart(retry) {
    this._each((connection) => this._rotate(connection, retry));
  }

  _each(action) {
    this._connections = this._connections.filter((connection) => connection.isOpen);
    this._connections.slice().forEach(action);
  }

  _later(connection, action) {
    this.world.later(connection.delay, () => connection.tab.run(action));
  }

  _send(connection, action) {
    this._later(connection, () => connection.isLost || action());
  }

  _forget(connection) {
    connection.isLost = true;
    this._connections = this._connections.filter((each) => each !== connection);
  }

  _arrive(connection) {
    connection.delay = 1 + Math.floor(this.world.random() * 150);
    this.world.later(connection.delay, () => {
      const way = this.ways[connection.transport];
      if (way === "refused") this._later(connection, () => connection.end());
      else if (way === "open" && connection.isOpen) this._accept(connection);
    });
  }

  _accept(connection) {
    const asked = connection.query.cursor || this.head;
    connection.channels = new URL(connection.url).pathname.split("/").pop().split(",");
    connection.place = this._start(connection, asked);
    this._connections.push(connection);
    if (connection.transport === "longpoll") {
      this._serve(connection);
      const hold = Math.min(this.window, connection.query.wait);
      this.world.later(1000 * hold, () => this._isHere(connection) && this._answer(connection, {messages: []}));
      return;
    }
    const {heartbeat, lifetime} = this, opening = {heartbeat, lifetime};
    const named = this._name(connection);
    this._send(connection, () => connection.works(named, opening));
    this._serve(connection);
    this._beat(connection);
    if (lifetime) this.world.later(900 * lifetime, () => this._rotate(connection, 300));
  }

  _start(connection, asked) {
    if (asked !== "earliest") return asked.startsWith(this.epoch) ? asked : UNKNOWN;
    connection.forgiven = connection.channels.map((name) => this._floor(name));
    return connection.forgiven.slice().sort()[0];
  }

  /** The cursor in a control message: `earliest` until the connection is past all that it need not know of. */
  _name({place, forgiven = []}) {
    return forgiven.some((floor) => floor > place) ? "earliest" : place;
  }

  _floor(name) {
    return this._floors[name] || cursor(0, this.epoch);
  }

  _isLost({channels, place, forgiven = []}) {
    if (place === UNKNOWN) return true;
    return channels.map((name) => this._floor(name)).some((floor, i) => floor > place && floor !== forgiven[i]);
  }

  _isHere(connection) {
    return connection.isOpen && this._connections.includes(connection);
  }

  /** What lies after its place, or that it is lost. */
  _serve(connection) {
    const {channels, place} = connection;
    if (this._isLost(connection)) {
      this.resets++;
      connection.place = this.head;
      if (connection.transport === "longpoll") this._answer(connection, {messages: [], reset: channels});
      else this._say(connection, {control: "reset", channels});
      return;
    }
    const isOwed = ({id, channel}) => id > place && id > this._floor(channel) && channels.includes(channel);
    const messages = this.log.filter(isOwed);
    if (place < this.head) connection.place = this.head;
    if (!messages.length) return;
    if (connection.transport === "longpoll") this._answer(connection, {messages});
    else this._send(connection, () => connection.tell(...messages));
  }

  _answer(connection, answer) {
    const whole = {cursor: this._name(connection), ...answer};
    this._connections = this._connections.filter((each) => each !== connection);
    this._send(connection, () => connection.answer(whole));
  }

  _say(connection, message) {
    const whole = {cursor: this._name(connection), ...message};
    this._send(connection, () => connection.say(whole));
  }

  _beat(connection) {
    this.world.later(1000 * this.heartbeat, () => {
      if (!this._isHere(connection)) return;
      this._say(connection, {control: "ping"});
      this._beat(connection);
    });
  }

  _rotate(connection, retry) {
    if (!this._isHere(connection)) return;
    const named = this._name(connection);
    this._send(connection, () => connection.rotate(named, retry));
    this._connections = this._connections.filter((each) => each !== connection);
  }
}

module.exports = {OTHERS, Server};
