/*
 * The program that the benchmarks have started. First thing it writes the clock (CLOCK_MONOTONIC, in nanoseconds) to
 * descriptor 3; static C, so that hardly anything of its own comes before.
 *
 *	child		ends
 *	child wait	writes the clock again for each SIGUSR1, until SIGTERM
 *	child serve PORT	answers connections with its process ID, until SIGTERM
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void report(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	int64_t ns = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
	if (write(3, &ns, sizeof ns) != sizeof ns)
		_exit(1);
}

static void serve(int port)
{
	int one = 1, s = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(s, (struct sockaddr *)&a, sizeof a) || listen(s, 16))
		_exit(1);
	char text[32];
	int n = snprintf(text, sizeof text, "%d", getpid());
	for (;;) {
		int c = accept(s, NULL, NULL);
		if (c >= 0 && write(c, text, n) == n)
			close(c);
	}
}

int main(int argc, char **argv)
{
	sigset_t usr1;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	report();
	if (argc > 2 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]));
	while (argc > 1) {
		int sig;
		if (!sigwait(&usr1, &sig))
			report();
	}
	return 0;
}
