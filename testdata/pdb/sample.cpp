// One of everything that the PDB reader must find. README.md in this folder has the commands and
// the facts that the tests expect; a changed line here moves the line numbers there.
namespace net {

struct Flags {
  unsigned int open : 1;
  unsigned int retries : 5;
  unsigned int : 10;
  unsigned int port : 16;
};

union Address {
  unsigned char bytes[16];
  unsigned short words[8];
};

struct Counters {
  unsigned long long sent;
  unsigned int failed;
};

class Channel {
public:
  virtual ~Channel();
  virtual int send(const char *data, int size) = 0;
  short kind;
};

class Session : public Channel {
public:
  Session(int id);
  ~Session() override;
  int send(const char *data, int size) override;
  static int count;

  int id;
  Flags flags;
  Address peer;
  Counters counters;
  Session *next;
  double weights[3][2];
  void (*callback)(Session *);
};

int Session::count = 7;
Channel::~Channel() {}

Session::Session(int id) : id(id), flags(), peer(), next(nullptr), weights(), callback(nullptr) {
  ++count;
}

Session::~Session() {
  --count;
}

int Session::send(const char *data, int size) {
  int sum = 0;
  for (int i = 0; i < size; ++i)
    sum += data[i];
  return sum;
}

} // namespace net

// What a C++ runtime would give; the DLL is linked without one.
using Size = decltype(sizeof(0));
void operator delete(void *) noexcept {}
void operator delete(void *, Size) noexcept {}
void *operator new(Size, void *at) { return at; }
extern "C" int _purecall() { return 0; }
extern "C" int _fltused = 0;

extern "C" {
unsigned long long sample_key = 0x1122334455667788;
static int hidden_total = 3;

__declspec(noinline) int add_total(int value) {
  hidden_total += value;
  return hidden_total;
}

__declspec(dllexport) int run(net::Session *session) {
  int total = session->send("abc", 3);
  return add_total(total);
}

__declspec(dllexport) void *open_session(void *at) {
  return new (at) net::Session(5);
}
}
