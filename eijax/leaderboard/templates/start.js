startRanking();
startCurves();
startModes();
startTalks();
// For measuring: the table and the charts stand.
performance.mark('board-drawn');

function openFromAddress() {
  const talk = talkAt(location.hash);
  if (talk && talk !== openTalk) showTalk(talk);
}
window.addEventListener('hashchange', openFromAddress);
openFromAddress();

let drawnWidth = innerWidth;
window.addEventListener('resize', () => {
  if (innerWidth === drawnWidth) return;
  drawnWidth = innerWidth;
  const head = byId('scores').querySelector('th[aria-sort]');
  sortBy(head, head.getAttribute('aria-sort'));
});
